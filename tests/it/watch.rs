//! Watching over real sockets: the contract's section 3, every test over both RPCs.

mod cursors;
mod ends;
mod markers;
mod removed;
mod starts;

use tailmark_wire::feed_v1 as pb;
use tonic::{IntoRequest, Status};

use crate::support::server::{Client, Watching, watch, watch_batches};

/// The RPC that a test watches over.
#[derive(Clone, Copy)]
enum Rpc {
    Watch,
    WatchBatches,
}

impl Rpc {
    async fn watch(
        self,
        client: &mut Client,
        request: impl IntoRequest<pb::WatchRequest>,
    ) -> Result<Watching, Status> {
        match self {
            Rpc::Watch => watch(client, request).await,
            Rpc::WatchBatches => watch_batches(client, request).await,
        }
    }
}

/// Makes two tests of each function named. One that is forgotten is dead code, which is a warning.
macro_rules! over_both {
    ($($test:ident),+ $(,)?) => {
        mod over_watch {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::Rpc::Watch).await;
            })+
        }
        mod over_watch_batches {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::Rpc::WatchBatches).await;
            })+
        }
    };
}

use over_both;
