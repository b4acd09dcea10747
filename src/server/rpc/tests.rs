//! The table of methods against what is built and what other crates declare.

use std::collections::BTreeSet;

use prost::Message;
use prost_types::FileDescriptorSet;
use tailmark_wire::methods::{self, Method};

/// What `build.rs` made.
const BUILT: [&str; 2] = [
    include_str!(concat!(env!("OUT_DIR"), "/feed.v1.FeedService.rs")),
    include_str!(concat!(env!("OUT_DIR"), "/chat.ChatService.rs")),
];

/// How the generated code answers a method.
fn verb(method: &Method) -> &'static str {
    match (method.client_streams, method.server_streams) {
        (false, false) => "unary",
        (true, false) => "client_streaming",
        (false, true) => "server_streaming",
        (true, true) => "streaming",
    }
}

#[test]
fn the_services_are_built_with_every_method_in_its_shape() {
    let mut built = BTreeSet::new();
    for code in BUILT {
        // An arm of the match over paths, up to the next one.
        for arm in code.split("\"/").skip(1) {
            let (path, body) = arm.split_once("\" => {").unwrap();
            let (before, _) = body.split_once("(method, req)").unwrap();
            let (_, verb) = before.rsplit_once("grpc.").unwrap();
            built.insert((format!("/{path}"), verb.to_owned()));
        }
    }
    let declared: BTreeSet<_> = methods::OURS
        .iter()
        .map(|method| (method.path.to_owned(), verb(method).to_owned()))
        .collect();
    assert_eq!(built, declared);
}

#[test]
fn the_methods_of_grpc_itself_are_those_of_their_crates() {
    let mut declared = BTreeSet::new();
    for descriptors in [
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ] {
        for file in FileDescriptorSet::decode(descriptors).unwrap().file {
            for service in &file.service {
                for method in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    declared.insert((path, method.client_streaming(), method.server_streaming()));
                }
            }
        }
    }
    let table: BTreeSet<_> = methods::BUILTIN
        .iter()
        .map(|method| (method.path.to_owned(), method.client_streams, method.server_streams))
        .collect();
    assert_eq!(table, declared);
}
