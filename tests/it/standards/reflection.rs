//! gRPC server reflection, v1 and v1alpha: the messages are the same bytes.

use prost::Message as _;
use prost_types::FileDescriptorProto;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::client::Grpc;
use tonic::{Code, Streaming};
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest::{self, *};
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{
    ExtensionRequest, ServerReflectionRequest, ServerReflectionResponse,
};

use crate::support::server::{TestServer, start, within};

const PATHS: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// One stream of questions and answers.
struct Asking {
    questions: mpsc::UnboundedSender<ServerReflectionRequest>,
    answers: Streaming<ServerReflectionResponse>,
}

impl Asking {
    async fn open(server: &TestServer, path: &'static str) -> Asking {
        let mut grpc = Grpc::new(server.channel().await);
        grpc.ready().await.unwrap();
        let (questions, receiver) = mpsc::unbounded_channel();
        let request = tonic::Request::new(UnboundedReceiverStream::new(receiver));
        let codec = tonic_prost::ProstCodec::default();
        let call = grpc.streaming(request, path.parse().unwrap(), codec);
        let answers = within("reflection", call).await.unwrap().into_inner();
        Asking { questions, answers }
    }

    /// Asks, and checks that the question comes back with its answer.
    async fn ask(&mut self, message: Option<MessageRequest>) -> MessageResponse {
        let question =
            ServerReflectionRequest { host: "a.host".into(), message_request: message.clone() };
        self.questions.send(question.clone()).unwrap();
        let answer = within("answer", self.answers.message()).await;
        let answer = answer.unwrap_or_else(|status| panic!("{message:?}: {status:?}")).unwrap();
        assert_eq!(answer.valid_host, "a.host");
        assert_eq!(answer.original_request, Some(question));
        answer.message_response.expect("an answer")
    }

    async fn error(&mut self, message: Option<MessageRequest>) -> (Code, String) {
        match self.ask(message.clone()).await {
            MessageResponse::ErrorResponse(error) => {
                (Code::from_i32(error.error_code), error.error_message)
            }
            other => panic!("{message:?}: {other:?}"),
        }
    }

    async fn file(&mut self, message: MessageRequest) -> FileDescriptorProto {
        match self.ask(Some(message.clone())).await {
            MessageResponse::FileDescriptorResponse(files) => {
                FileDescriptorProto::decode(&files.file_descriptor_proto[0][..]).unwrap()
            }
            other => panic!("{message:?}: {other:?}"),
        }
    }
}

fn extension(of: &str, number: i32) -> ExtensionRequest {
    ExtensionRequest { containing_type: of.to_owned(), extension_number: number }
}

#[tokio::test]
async fn an_error_is_an_answer_and_the_stream_goes_on() {
    let server = start().await;
    for path in PATHS {
        let mut asking = Asking::open(&server, path).await;
        for (message, code, word) in [
            (Some(FileByFilename("no/such.proto".into())), Code::NotFound, "no/such.proto"),
            (Some(FileContainingSymbol("feed.v1.Nothing".into())), Code::NotFound, "Nothing"),
            (Some(FileContainingSymbol(String::new())), Code::NotFound, ""),
            (Some(FileContainingExtension(extension("feed.v1.Event", 7))), Code::NotFound, "7"),
            (Some(AllExtensionNumbersOfType("feed.v1.Nothing".into())), Code::NotFound, "Nothing"),
            // A service is no type that could be extended.
            (
                Some(AllExtensionNumbersOfType("feed.v1.FeedService".into())),
                Code::NotFound,
                "FeedService",
            ),
            (None, Code::InvalidArgument, ""),
        ] {
            let (told, text) = asking.error(message.clone()).await;
            assert_eq!(told, code, "{message:?}: {text}");
            assert!(text.contains(word) && !text.is_empty(), "{message:?}: {text}");
        }
        // After all of them it still answers.
        let file = asking.file(FileContainingSymbol("feed.v1.FeedService".into())).await;
        assert_eq!(file.name(), "feed/v1/feed.proto");
        // A client that has no more questions ends it.
        drop(asking.questions);
        assert_eq!(within("end", asking.answers.message()).await.unwrap(), None, "{path}");
    }
    server.stop().await;
}

#[tokio::test]
async fn every_kind_of_symbol_is_found_in_its_file() {
    let server = start().await;
    for path in PATHS {
        let mut asking = Asking::open(&server, path).await;
        for (symbol, name) in [
            ("feed.v1.FeedService", "feed/v1/feed.proto"),
            ("feed.v1.FeedService.Watch", "feed/v1/feed.proto"),
            ("feed.v1.Event", "feed/v1/feed.proto"),
            ("feed.v1.Event.topic", "feed/v1/feed.proto"),
            ("feed.v1.Start.at", "feed/v1/feed.proto"),
            ("feed.v1.Marker.Kind", "feed/v1/feed.proto"),
            // As in C++, the values of an enum are its siblings.
            ("feed.v1.Marker.CAUGHT_UP", "feed/v1/feed.proto"),
            ("feed.v1.FSYNC", "feed/v1/feed.proto"),
            ("chat.ChatService.Chat", "chat/chat.proto"),
            ("grpc.health.v1.Health.Check", "health.proto"),
            ("google.protobuf.Timestamp", "google/protobuf/timestamp.proto"),
        ] {
            let file = asking.file(FileContainingSymbol(symbol.to_owned())).await;
            assert!(file.name().ends_with(name), "{symbol}: {}", file.name());
        }
        // What a file needs is found under the name by which it needs it.
        let mut wanted = vec!["feed/v1/feed.proto".to_owned(), "chat/chat.proto".to_owned()];
        let mut seen = 0;
        while let Some(name) = wanted.pop() {
            let file = asking.file(FileByFilename(name.clone())).await;
            assert_eq!(file.name(), name);
            wanted.extend(file.dependency);
            seen += 1;
        }
        assert!(seen >= 4, "{seen} files");
        match asking.ask(Some(AllExtensionNumbersOfType("feed.v1.Event".into()))).await {
            MessageResponse::AllExtensionNumbersResponse(none) => {
                assert_eq!(none.base_type_name, "feed.v1.Event");
                assert!(none.extension_number.is_empty());
            }
            other => panic!("{other:?}"),
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn the_services_are_those_that_answer() {
    let server = start().await;
    for path in PATHS {
        let mut asking = Asking::open(&server, path).await;
        let MessageResponse::ListServicesResponse(list) =
            asking.ask(Some(ListServices("*".into()))).await
        else {
            panic!("no list");
        };
        let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "chat.ChatService",
                "feed.v1.FeedService",
                "grpc.health.v1.Health",
                "grpc.reflection.v1.ServerReflection",
                "grpc.reflection.v1alpha.ServerReflection",
            ],
            "{path}"
        );
    }
    server.stop().await;
}
