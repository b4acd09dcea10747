//! Somebody who means no harm, beside who does: it publishes, and its watch sees what it publishes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tailmark_wire::feed_v1 as pb;
use tailmark_wire::feed_v1::feed_service_client::FeedServiceClient;
use tokio::net::{TcpSocket, TcpStream};
use tonic::transport::{Channel, Endpoint};

use crate::support::server::{Client, PATIENCE, Watching, event, watch, within};

/// Another machine's, as far as the server knows.
pub fn elsewhere(at: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, at).into()
}

/// A connection from there.
pub async fn connect(address: SocketAddr, from: IpAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(from, 0)).unwrap();
    within("connect", socket.connect(address)).await.unwrap()
}

/// A client from there, whose connection is made with its first call.
pub fn channel(address: SocketAddr, from: IpAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    endpoint.local_address(Some(from)).connect_lazy()
}

/// A client that calls from there.
pub fn client(address: SocketAddr, from: IpAddr) -> Client {
    FeedServiceClient::new(channel(address, from))
}

/// The longest that the victim may wait for one event of its own, from the call until its watch has it:
/// what it feels must end within what a person waits, however slow the machine is.
const LONGEST: Duration = Duration::from_secs(30);

/// The victim.
pub struct Victim {
    client: Client,
    watching: Watching,
}

impl Victim {
    pub async fn new(address: SocketAddr, from: IpAddr) -> Victim {
        let mut client = client(address, from);
        let request = pb::WatchRequest { topic: "victim".into(), ..Default::default() };
        let watching = watch(&mut client, request).await.unwrap();
        Victim { client, watching }
    }

    /// Publishes so many events, and sees each; the longest time that one took.
    pub async fn lives(&mut self, events: u32) -> Duration {
        let mut longest = Duration::ZERO;
        for at in 0..events {
            let begun = Instant::now();
            let body = at.to_string();
            let request =
                pb::PublishRequest { event: Some(event("victim", &body)), expected_head: None };
            let published = within("publish", self.client.publish(request)).await.unwrap();
            let seen = self.watching.event().await;
            assert_eq!((seen.seq, seen.body), (published.into_inner().seq, body));
            longest = longest.max(begun.elapsed());
        }
        assert!(longest < LONGEST.min(PATIENCE), "{longest:?}");
        longest
    }
}
