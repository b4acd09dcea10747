//! A proxy that speaks HTTP/2 on both sides, and answers in the server's place when it is told to:
//! every way in which something between a client and a server can end a call.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

/// When it acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// As a connection is taken.
    Connection,
    /// As a request comes, which is not passed on.
    Request,
    /// As the server's answer comes, which is not passed on; the request was.
    Answer,
    /// As more of an answer comes that has begun.
    More,
}

/// What it does.
#[derive(Clone, Debug)]
pub enum Act {
    /// An answer of its own: status, headers, body.
    Http(u16, &'static [(&'static str, &'static str)], &'static str),
    /// Ends the answer with these bytes.
    Data(&'static [u8]),
    /// Ends the answer with these trailers.
    Trailers(&'static [(&'static str, &'static str)]),
    /// RST_STREAM.
    Reset(Reason),
    /// GOAWAY, and closes the connection.
    GoAway(Reason),
    /// Closes the connection in order.
    Close,
    /// Resets the connection.
    Rst,
    /// Writes these bytes, whatever they are, and closes the connection.
    Bytes(&'static [u8]),
}

/// One thing to do, so many times, to calls whose path has this in it.
type Order = (When, &'static str, Act, usize);

pub struct Intermediary {
    pub address: SocketAddr,
    shared: Shared,
    _stop: DropGuard,
}

#[derive(Clone)]
struct Shared {
    server: SocketAddr,
    orders: Arc<Mutex<VecDeque<Order>>>,
    /// Counts up when all streams that are open are to be reset.
    cuts: watch::Sender<u64>,
    stop: CancellationToken,
}

impl Intermediary {
    pub async fn to(server: SocketAddr) -> Intermediary {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let (orders, cuts) = (Arc::default(), watch::Sender::new(0));
        let shared = Shared { server, orders, cuts, stop: stop.clone() };
        let own = shared.clone();
        shared.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                own.spawn(serve(stream, own.clone()));
            }
        });
        Intermediary { address, shared, _stop: stop.drop_guard() }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Does this to the next calls whose path has `part` in it.
    pub fn order(&self, when: When, part: &'static str, act: Act, times: usize) {
        self.shared.orders.lock().unwrap().push_back((when, part, act, times));
    }

    /// Whether everything was done that was ordered.
    pub fn is_done(&self) -> bool {
        self.shared.orders.lock().unwrap().is_empty()
    }

    /// Resets every stream that is open.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }
}

impl Shared {
    /// Ends with the intermediary.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        tokio::spawn(async move { stop.run_until_cancelled(task).await });
    }

    fn take(&self, when: When, path: &str) -> Option<Act> {
        let mut orders = self.orders.lock().unwrap();
        let is_meant = |order: &Order| order.0 == when && path.contains(order.1);
        let at = orders.iter().position(is_meant)?;
        orders[at].3 -= 1;
        let act = orders[at].2.clone();
        if orders[at].3 == 0 {
            orders.remove(at);
        }
        Some(act)
    }
}

/// What a call makes of its connection.
enum End {
    GoAway(Reason),
    Close,
    Rst,
}

async fn serve(stream: TcpStream, shared: Shared) {
    let stream = stream.into_std().unwrap();
    let same = stream.try_clone().unwrap();
    let mut stream = TcpStream::from_std(stream).unwrap();
    let reset = || rustix::net::sockopt::set_socket_linger(&same, Some(Duration::ZERO)).unwrap();
    match shared.take(When::Connection, "") {
        Some(Act::Bytes(bytes)) => {
            let _ = stream.write_all(bytes).await;
            let _ = stream.shutdown().await;
            // Until the client leaves: what was not read would cut the answer short.
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            return;
        }
        Some(Act::Rst) => return reset(),
        Some(Act::Close) => return,
        Some(other) => panic!("{other:?} of a connection"),
        None => {}
    }
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    let (end, mut ended) = mpsc::channel(1);
    loop {
        tokio::select! {
            call = connection.accept() => match call {
                Some(Ok((request, respond))) => {
                    shared.spawn(forward(request, respond, shared.clone(), end.clone()));
                }
                _ => return,
            },
            Some(end) = ended.recv() => match end {
                End::GoAway(reason) => {
                    connection.abrupt_shutdown(reason);
                    let _ = std::future::poll_fn(|cx| connection.poll_closed(cx)).await;
                    return;
                }
                End::Close => return,
                End::Rst => return reset(),
            },
        }
    }
}

async fn forward(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    shared: Shared,
    end: mpsc::Sender<End>,
) {
    let path = request.uri().path().to_owned();
    if let Some(act) = shared.take(When::Request, &path) {
        return answer(act, &mut respond, &end).await;
    }
    let mut cuts = shared.cuts.subscribe();
    // The connection to the server lives as long as the call.
    let Ok(stream) = TcpStream::connect(shared.server).await else {
        return answer(Act::Http(502, &[("content-type", "text/html")], "x"), &mut respond, &end)
            .await;
    };
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let pass = pass(request, sender, &mut respond, &shared, &end);
    let is_cut = tokio::select! {
        result = pass => result.is_err(),
        _ = cuts.changed() => true,
    };
    if is_cut {
        respond.send_reset(Reason::INTERNAL_ERROR);
    }
    connection.abort();
}

/// One call to the server and back.
async fn pass(
    request: Request<RecvStream>,
    sender: h2::client::SendRequest<Bytes>,
    respond: &mut SendResponse<Bytes>,
    shared: &Shared,
    end: &mpsc::Sender<End>,
) -> Result<(), h2::Error> {
    let (head, mut body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let (response, mut up) =
        sender.ready().await?.send_request(Request::from_parts(head, ()), false)?;
    let asking = tokio::spawn(async move { copy(&mut body, &mut up, |_| false).await.map(|_| ()) });
    let (head, mut body) = response.await?.into_parts();
    if let Some(act) = shared.take(When::Answer, &path) {
        answer(act, respond, end).await;
        return Ok(());
    }
    let is_end = body.is_end_stream();
    let mut down = respond.send_response(Response::from_parts(head, ()), is_end)?;
    if is_end {
        return Ok(());
    }
    let mut act = None;
    let is_whole = copy(&mut body, &mut down, |_| {
        act = shared.take(When::More, &path);
        act.is_some()
    })
    .await?;
    if !is_whole && let Some(act) = act {
        more(act, &mut down, end).await;
    }
    asking.abort();
    Ok(())
}

/// Copies until the end, and answers true, or until `stops` says so of what has come.
async fn copy(
    from: &mut RecvStream,
    to: &mut SendStream<Bytes>,
    mut stops: impl FnMut(&Bytes) -> bool,
) -> Result<bool, h2::Error> {
    while let Some(data) = from.data().await {
        let data = data?;
        from.flow_control().release_capacity(data.len())?;
        if stops(&data) {
            return Ok(false);
        }
        to.send_data(data, false)?;
    }
    match from.trailers().await? {
        Some(trailers) => to.send_trailers(trailers)?,
        None => to.send_data(Bytes::new(), true)?,
    }
    Ok(true)
}

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let pair = |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
    pairs.iter().map(pair).collect()
}

/// Instead of an answer.
async fn answer(act: Act, respond: &mut SendResponse<Bytes>, end: &mpsc::Sender<End>) {
    let mut begin = |status, pairs: &[_], is_end| {
        let mut response = Response::builder().status(status).body(()).unwrap();
        *response.headers_mut() = headers(pairs);
        respond.send_response(response, is_end)
    };
    match act {
        Act::Http(status, pairs, "") => drop(begin(status, pairs, true)),
        Act::Http(status, pairs, body) => {
            if let Ok(mut stream) = begin(status, pairs, false) {
                let _ = stream.send_data(Bytes::from_static(body.as_bytes()), true);
            }
        }
        Act::Reset(reason) => respond.send_reset(reason),
        Act::GoAway(reason) => finish(End::GoAway(reason), end).await,
        Act::Close => finish(End::Close, end).await,
        Act::Rst => finish(End::Rst, end).await,
        act => {
            const GRPC: &[(&str, &str)] = &[("content-type", "application/grpc")];
            if let Ok(mut stream) = begin(200, GRPC, false) {
                more(act, &mut stream, end).await;
            }
        }
    }
}

/// Within an answer that has begun.
async fn more(act: Act, stream: &mut SendStream<Bytes>, end: &mpsc::Sender<End>) {
    let _ = match act {
        Act::Data(bytes) => stream.send_data(Bytes::from_static(bytes), true),
        Act::Trailers(pairs) => stream.send_trailers(headers(pairs)),
        Act::Reset(reason) => {
            stream.send_reset(reason);
            Ok(())
        }
        Act::GoAway(reason) => return finish(End::GoAway(reason), end).await,
        Act::Close => return finish(End::Close, end).await,
        Act::Rst => return finish(End::Rst, end).await,
        other => panic!("{other:?} within an answer"),
    };
}

/// Ends the connection. The call goes with it: dropped before, it would be reset first.
async fn finish(how: End, end: &mpsc::Sender<End>) {
    let _ = end.send(how).await;
    std::future::pending().await
}
