//! Every method that the server answers to: the one table of paths and shapes.
//!
//! Ours are generated from `proto/`; those of health and reflection stand here, and a test of the
//! server holds them against the descriptors of the crates that serve them.

include!("generated/methods.rs");

/// A method of a gRPC service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// `/package.Service/Method`, as a request has it.
    pub path: &'static str,
    /// A client sends as many messages as it likes; otherwise exactly one.
    pub client_streams: bool,
    /// The server sends as many messages as it likes; otherwise exactly one.
    pub server_streams: bool,
}

/// Methods of gRPC itself: health and reflection.
pub static BUILTIN: [Method; 4] = [
    Method::unary("/grpc.health.v1.Health/Check"),
    Method::server_streaming("/grpc.health.v1.Health/Watch"),
    Method::bidirectional("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"),
    Method::bidirectional("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"),
];

/// How many there are, ours and gRPC's.
pub const COUNT: usize = OURS.len() + BUILTIN.len();

impl Method {
    const fn unary(path: &'static str) -> Method {
        Method { path, client_streams: false, server_streams: false }
    }

    const fn client_streaming(path: &'static str) -> Method {
        Method { path, client_streams: true, server_streams: false }
    }

    const fn server_streaming(path: &'static str) -> Method {
        Method { path, client_streams: false, server_streams: true }
    }

    const fn bidirectional(path: &'static str) -> Method {
        Method { path, client_streams: true, server_streams: true }
    }

    /// One message each way.
    pub const fn is_unary(&self) -> bool {
        !self.client_streams && !self.server_streams
    }

    /// The full name of its service.
    pub fn service(&self) -> &'static str {
        service_of(self.path).unwrap_or_default()
    }
}

/// All of them: ours in the order of `proto/`, then gRPC's.
pub fn all() -> impl Iterator<Item = &'static Method> {
    OURS.iter().chain(&BUILTIN)
}

/// What a path asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// This method, by its place in [`all`].
    Method(usize, &'static Method),
    /// A method that a service of ours has not, or that one of gRPC's has not.
    Unknown {
        /// The service is one of gRPC's.
        is_builtin: bool,
    },
    /// No service that is served.
    Other,
}

impl Asked {
    /// Reads the path of a request.
    pub fn of(path: &str) -> Asked {
        if let Some((at, method)) = all().enumerate().find(|(_, method)| method.path == path) {
            return Asked::Method(at, method);
        }
        let Some(service) = service_of(path) else { return Asked::Other };
        match all().position(|method| method.service() == service) {
            Some(at) => Asked::Unknown { is_builtin: at >= OURS.len() },
            None => Asked::Other,
        }
    }

    /// It is one of the methods.
    pub fn is_method(&self) -> bool {
        matches!(self, Asked::Method(..))
    }

    /// It goes to a service that is served.
    pub fn is_of_service(&self) -> bool {
        !matches!(self, Asked::Other)
    }

    /// It goes to health or reflection.
    pub fn is_builtin(&self) -> bool {
        match self {
            Asked::Method(at, _) => *at >= OURS.len(),
            Asked::Unknown { is_builtin } => *is_builtin,
            Asked::Other => false,
        }
    }

    /// The client may send many messages.
    pub fn client_streams(&self) -> bool {
        matches!(self, Asked::Method(_, method) if method.client_streams)
    }
}

/// What stands between the first two slashes.
fn service_of(path: &str) -> Option<&str> {
    path.strip_prefix('/')?.split_once('/').map(|(service, _)| service)
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost_types::FileDescriptorSet;

    use super::*;

    #[test]
    fn the_table_is_what_the_descriptors_say() {
        let mut declared = Vec::new();
        for file in FileDescriptorSet::decode(crate::DESCRIPTORS).unwrap().file {
            for service in &file.service {
                for method in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    declared.push((path, method.client_streaming(), method.server_streaming()));
                }
            }
        }
        let table: Vec<_> = OURS
            .iter()
            .map(|method| (method.path.to_owned(), method.client_streams, method.server_streams))
            .collect();
        assert!(declared.len() > 10);
        assert_eq!(table, declared);
    }

    #[test]
    fn a_path_is_a_method_a_service_or_neither() {
        assert_eq!(Asked::of("/feed.v1.FeedService/Watch"), Asked::Method(0, &feed_service::WATCH));
        assert_eq!(feed_service::WATCH.service(), feed_service::NAME);
        for (path, is_of_service, is_builtin) in [
            ("/chat.ChatService/Chat", true, false),
            ("/chat.ChatService/Nothing", true, false),
            ("/chat.ChatService/", true, false),
            ("/chat.ChatService/Chat/", true, false),
            ("/grpc.health.v1.Health/Check", true, true),
            ("/grpc.health.v1.Health/Nothing", true, true),
            ("/chat.ChatService", false, false),
            ("/chat.ChatServices/Chat", false, false),
            ("chat.ChatService/Chat", false, false),
            ("/", false, false),
            ("", false, false),
        ] {
            let asked = Asked::of(path);
            assert_eq!(
                (asked.is_of_service(), asked.is_builtin()),
                (is_of_service, is_builtin),
                "{path}"
            );
        }
    }
}
