//! Clients that send bytes as they are, and one that leaves deadlines to the server.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
pub use tailmark_client::raw::Raw;
use tailmark_wire::feed_v1 as pb;
use tokio::net::TcpStream;
use tokio_stream::Stream;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::transport::Channel;
use tonic::{Status, Streaming, client::Grpc};

use super::server::within;

const UPLOAD: &str = "/feed.v1.FeedService/UploadEvents";

/// Uploads messages as they are.
pub async fn upload(channel: Channel, messages: Vec<Bytes>) -> Result<Bytes, Status> {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.unwrap();
    let request = tonic::Request::new(tokio_stream::iter(messages));
    let path = UPLOAD.parse().unwrap();
    Ok(within("upload", grpc.client_streaming(request, path, Raw)).await?.into_inner())
}

/// Calls a method with bytes that may be no message.
pub async fn call(channel: Channel, method: &str, message: Bytes) -> Result<Bytes, Status> {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.unwrap();
    let path = format!("/feed.v1.FeedService/{method}").parse().unwrap();
    let request = tonic::Request::new(message);
    Ok(within(method, grpc.unary(request, path, Raw)).await?.into_inner())
}

/// Calls a method that answers with a stream, and takes the answers as they are.
pub async fn stream(
    channel: Channel,
    method: &str,
    message: Bytes,
) -> Result<Streaming<Bytes>, Status> {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.unwrap();
    let path = format!("/feed.v1.FeedService/{method}").parse().unwrap();
    let request = tonic::Request::new(message);
    Ok(within(method, grpc.server_streaming(request, path, Raw)).await?.into_inner())
}

/// Uploads with a deadline that only the server looks at.
pub async fn upload_until(
    address: SocketAddr,
    messages: impl Stream<Item = Bytes> + Send + 'static,
    timeout: &'static str,
) -> Result<Bytes, Status> {
    let mut grpc = Grpc::with_origin(Plain::connect(address).await, origin(address));
    let mut request = tonic::Request::new(messages);
    request.metadata_mut().insert("grpc-timeout", timeout.parse().unwrap());
    let call = grpc.client_streaming(request, UPLOAD.parse().unwrap(), Raw);
    Ok(within("upload", call).await?.into_inner())
}

/// Appends with a deadline that only the server looks at.
pub async fn append_until(
    address: SocketAddr,
    messages: impl Stream<Item = pb::AppendRequest> + Send + 'static,
    timeout: &'static str,
) -> Result<tonic::Streaming<pb::AppendResponse>, Status> {
    let mut grpc = Grpc::with_origin(Plain::connect(address).await, origin(address));
    let mut request = tonic::Request::new(messages);
    request.metadata_mut().insert("grpc-timeout", timeout.parse().unwrap());
    let path = "/feed.v1.FeedService/Append".parse().unwrap();
    let codec = tonic_prost::ProstCodec::default();
    Ok(within("append", grpc.streaming(request, path, codec)).await?.into_inner())
}

/// Publishes with a deadline that only the server looks at.
pub async fn publish_until(
    address: SocketAddr,
    message: pb::PublishRequest,
    timeout: &'static str,
) -> Result<pb::PublishResult, Status> {
    let mut grpc = Grpc::with_origin(Plain::connect(address).await, origin(address));
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("grpc-timeout", timeout.parse().unwrap());
    let path = "/feed.v1.FeedService/Publish".parse().unwrap();
    let codec = tonic_prost::ProstCodec::default();
    Ok(within("publish", grpc.unary(request, path, codec)).await?.into_inner())
}

fn origin(address: SocketAddr) -> Uri {
    format!("http://{address}").parse().unwrap()
}

/// One HTTP/2 connection and nothing around it: tonic's own channel would end a call by itself.
struct Plain(SendRequest<Body>);

impl Plain {
    async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (sender, connection) =
            handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Plain(sender)
    }
}

impl GrpcService<Body> for Plain {
    type ResponseBody = Incoming;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Incoming>, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
