//! What stands between a client and the server, and answers in its place: whatever can pass is
//! tried again, whatever cannot is said; no event is missed, and none is stored or seen twice.

mod browsers;
mod calls;
mod in_front;
mod limits;
mod members;
mod real;
mod streams;

use tailmark_client::Client;

use crate::support::intermediary::{Intermediary, When};
use crate::support::server::{TestServer, start};
use members::Member;

/// A server with three events, and what stands before it.
async fn setup() -> (TestServer, Intermediary, Client) {
    let server = start().await;
    server.store("a", 3).await;
    let proxy = Intermediary::to(server.address).await;
    let client = Client::new(&proxy.url()).unwrap();
    (server, proxy, client)
}

/// The next call to `path` meets this member, or the next connection does.
fn order(proxy: &Intermediary, when: When, member: &Member, path: &'static str) {
    let is_watch = path == "/Watch";
    let (path, calls) = match when {
        When::Connection => ("", 1),
        // A watch that is told UNIMPLEMENTED asks the older way once more.
        _ => (path, if is_watch { member.watch_calls } else { 1 }),
    };
    proxy.order(when, path, member.act.clone(), calls);
}
