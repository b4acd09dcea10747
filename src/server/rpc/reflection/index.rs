//! An index of descriptors, by file name and by every symbol.

use std::collections::{BTreeSet, HashMap, HashSet};

use prost::{DecodeError, Message};
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto};
use tailmark_record::excerpt;
use tonic::Status;

/// Files, symbols and services.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// Encoded files; everything else says which.
    files: Vec<Vec<u8>>,
    names: HashMap<String, usize>,
    symbols: HashMap<String, usize>,
    /// Of the symbols, the messages: only they can be extended. Nothing here is.
    messages: HashSet<String>,
    services: BTreeSet<String>,
}

/// A set whose files are kept as they are: decoded and encoded again they would lose options that
/// this program does not know.
#[derive(Clone, PartialEq, Message)]
struct EncodedFiles {
    #[prost(bytes = "vec", repeated, tag = "1")]
    file: Vec<Vec<u8>>,
}

impl Index {
    /// Takes in encoded sets of descriptors. A file that several have counts once.
    ///
    /// # Errors
    /// When one is no such set.
    pub(crate) fn new(sets: &[&[u8]]) -> Result<Index, DecodeError> {
        let mut index = Index::default();
        for set in sets {
            for file in EncodedFiles::decode(*set)?.file {
                index.add(file)?;
            }
        }
        Ok(index)
    }

    fn add(&mut self, encoded: Vec<u8>) -> Result<(), DecodeError> {
        let file = FileDescriptorProto::decode(&encoded[..])?;
        if self.names.contains_key(file.name()) {
            return Ok(());
        }
        let at = self.files.len();
        self.names.insert(file.name().to_owned(), at);
        self.files.push(encoded);
        let package = file.package();
        for message in &file.message_type {
            self.add_message(package, message, at);
        }
        for kind in &file.enum_type {
            self.add_enum(package, kind, at);
        }
        for extension in &file.extension {
            self.add_symbol(package, extension.name(), at);
        }
        for service in &file.service {
            let name = self.add_symbol(package, service.name(), at);
            for method in &service.method {
                self.add_symbol(&name, method.name(), at);
            }
            self.services.insert(name);
        }
        Ok(())
    }

    fn add_message(&mut self, scope: &str, message: &DescriptorProto, at: usize) {
        let name = self.add_symbol(scope, message.name(), at);
        for nested in &message.nested_type {
            self.add_message(&name, nested, at);
        }
        for kind in &message.enum_type {
            self.add_enum(&name, kind, at);
        }
        for field in message.field.iter().chain(&message.extension) {
            self.add_symbol(&name, field.name(), at);
        }
        for choice in &message.oneof_decl {
            self.add_symbol(&name, choice.name(), at);
        }
        self.messages.insert(name);
    }

    fn add_enum(&mut self, scope: &str, kind: &EnumDescriptorProto, at: usize) {
        let name = self.add_symbol(scope, kind.name(), at);
        for value in &kind.value {
            // As in C++ a value is a sibling of its type. Some ask for it inside of the type, where
            // most servers have it too.
            self.add_symbol(scope, value.name(), at);
            self.add_symbol(&name, value.name(), at);
        }
    }

    fn add_symbol(&mut self, scope: &str, name: &str, at: usize) -> String {
        let full = if scope.is_empty() { name.to_owned() } else { format!("{scope}.{name}") };
        self.symbols.insert(full.clone(), at);
        full
    }

    pub(super) fn file(&self, name: &str) -> Result<&[u8], Status> {
        self.encoded(self.names.get(name)).ok_or_else(|| not_found("file", name))
    }

    pub(super) fn symbol(&self, name: &str) -> Result<&[u8], Status> {
        self.encoded(self.symbols.get(name)).ok_or_else(|| not_found("symbol", name))
    }

    fn encoded(&self, at: Option<&usize>) -> Option<&[u8]> {
        self.files.get(*at?).map(Vec::as_slice)
    }

    /// Whether it is a message.
    pub(super) fn message(&self, name: &str) -> Result<(), Status> {
        if self.messages.contains(name) { Ok(()) } else { Err(not_found("message type", name)) }
    }

    /// Why there is no such extension: there are none at all.
    pub(super) fn extension(&self, of: &str, number: i32) -> Status {
        self.message(of).err().unwrap_or_else(|| {
            Status::not_found(format!("the message type {of} has no extension {number}"))
        })
    }

    pub(super) fn services(&self) -> impl Iterator<Item = &String> {
        self.services.iter()
    }
}

/// A request that asks for nothing.
pub(super) fn nothing_asked() -> Status {
    Status::invalid_argument("the request asks for nothing: no field of `message_request` is set")
}

fn not_found(what: &str, name: &str) -> Status {
    // The question comes back beside it, whole.
    Status::not_found(format!("this server knows no {what} {:?}", excerpt(name)))
}
