//! Server reflection, v1 and v1alpha, over the built-in descriptors.
//!
//! As its proto has it, an error is an answer and the stream goes on. tonic-reflection's own
//! service ends the stream instead, and looks for an enum's values inside of the enum.

mod index;

use std::pin::Pin;
use std::sync::Arc;

use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming, async_trait};

pub(crate) use index::Index;

/// The service over an index.
#[derive(Clone, Debug)]
pub(crate) struct Reflection(pub(crate) Arc<Index>);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Both versions have the same messages under another name.
macro_rules! reflection {
    ($version:ident) => {
        mod $version {
            use super::*;
            use tonic_reflection::pb::$version::server_reflection_request::MessageRequest as Asked;
            use tonic_reflection::pb::$version::server_reflection_response::MessageResponse as Told;
            use tonic_reflection::pb::$version::{
                ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse,
                ListServiceResponse, ServerReflectionRequest, ServerReflectionResponse,
                ServiceResponse,
            };
            use tonic_reflection::server::$version::ServerReflection;

            #[async_trait]
            impl ServerReflection for Reflection {
                type ServerReflectionInfoStream = Answers<ServerReflectionResponse>;

                async fn server_reflection_info(
                    &self,
                    request: Request<Streaming<ServerReflectionRequest>>,
                ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
                    let index = Arc::clone(&self.0);
                    let answers = request.into_inner().map(move |asked| {
                        asked.map(|asked| ServerReflectionResponse {
                            valid_host: asked.host.clone(),
                            message_response: Some(tell(&index, asked.message_request.as_ref())),
                            original_request: Some(asked),
                        })
                    });
                    Ok(Response::new(Box::pin(answers)))
                }
            }

            fn tell(index: &Index, asked: Option<&Asked>) -> Told {
                let file = |bytes: &[u8]| {
                    Told::FileDescriptorResponse(FileDescriptorResponse {
                        file_descriptor_proto: vec![bytes.to_vec()],
                    })
                };
                let told = match asked {
                    Some(Asked::FileByFilename(name)) => index.file(name).map(file),
                    Some(Asked::FileContainingSymbol(name)) => index.symbol(name).map(file),
                    Some(Asked::FileContainingExtension(asked)) => {
                        Err(index.extension(&asked.containing_type, asked.extension_number))
                    }
                    Some(Asked::AllExtensionNumbersOfType(name)) => index.message(name).map(|()| {
                        Told::AllExtensionNumbersResponse(ExtensionNumberResponse {
                            base_type_name: name.clone(),
                            extension_number: Vec::new(),
                        })
                    }),
                    Some(Asked::ListServices(_)) => {
                        let named = |name: &String| ServiceResponse { name: name.clone() };
                        let service = index.services().map(named).collect();
                        Ok(Told::ListServicesResponse(ListServiceResponse { service }))
                    }
                    None => Err(index::nothing_asked()),
                };
                told.unwrap_or_else(|status| {
                    Told::ErrorResponse(ErrorResponse {
                        error_code: status.code().into(),
                        error_message: status.message().to_owned(),
                    })
                })
            }
        }
    };
}

reflection!(v1);
reflection!(v1alpha);
