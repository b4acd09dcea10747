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

use crate::server::Options;
use crate::server::permits::StreamKind;
use crate::server::quotas::{Peer, Quotas};
use crate::server::rpc::silence::Heard;
use crate::server::rpc::status;

/// The service over an index.
#[derive(Clone, Debug)]
pub(crate) struct Reflection {
    pub(crate) index: Arc<Index>,
    pub(crate) quotas: Arc<Quotas>,
    pub(crate) options: Arc<Options>,
}

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
                    let peer = request.extensions().get::<Peer>();
                    let grant = self.quotas.stream(StreamKind::Reflection, peer, None);
                    let grant = grant.map_err(status::too_many)?;
                    let index = Arc::clone(&self.index);
                    let questions = Heard::new(request.into_inner(), &self.options);
                    let answers = questions.map(move |asked| {
                        let _held = &grant;
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
