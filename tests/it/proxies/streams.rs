//! Watches, rooms and figures under every member.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use futures_core::Stream;
use tailmark_client::{
    Client, Error, Item, KeptWatch, MemoryStore, Metrics, MetricsItem, Room, RoomItem, Saying,
    Start, Watch, WatchOptions,
};
use tailmark_record::MarkerKind;

use super::members::{self, Member, No, Yes, each};
use super::{TestServer, order, setup};
use crate::support::server::within;

/// Short waits: a member fails once.
fn options() -> WatchOptions {
    let mut options = WatchOptions::default();
    options.start = Start::Oldest;
    (options.shortest_retry, options.longest_retry) =
        (Duration::from_millis(1), Duration::from_millis(2));
    options
}

type Next = Option<Result<Item, Error>>;

async fn next(watch: &mut Watch) -> Next {
    within("item", poll_fn(|cx| Pin::new(&mut *watch).poll_next(cx))).await
}

fn seq(item: Next) -> u64 {
    match item {
        Some(Ok(Item::Event(received))) => received.seq().get(),
        other => panic!("{other:?}"),
    }
}

fn interrupted(item: Next) -> Error {
    match item {
        Some(Ok(Item::Interrupted { cause, .. })) => cause,
        other => panic!("{other:?}"),
    }
}

fn failed(item: Next) -> Error {
    match item {
        Some(Err(error)) => error,
        other => panic!("{other:?}"),
    }
}

const WATCH: &str = "/Watch";

#[tokio::test]
async fn a_watch_that_begins_is_tried_again_or_says_why_not() {
    each(members::instead_or_at_once(), |when, member| async move {
        let (server, proxy, client) = setup().await;
        order(&proxy, when, &member, WATCH);
        let mut watch = client.watch(options());
        if member.passes == Yes {
            member.check(&interrupted(next(&mut watch).await));
            for at in 1..=3 {
                assert_eq!(seq(next(&mut watch).await), at);
            }
        } else {
            member.check(&failed(next(&mut watch).await));
            assert!(next(&mut watch).await.is_none(), "something after an error");
        }
        assert!(proxy.is_done());
        drop(watch);
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_watch_that_has_met_its_server_goes_on_exactly_where_it_was() {
    each(members::instead_or_at_once(), |when, member| async move {
        let (server, proxy, client) = setup().await;
        let mut watch = client.watch(options());
        for at in 1..=3 {
            assert_eq!(seq(next(&mut watch).await), at);
        }
        order(&proxy, when, &member, WATCH);
        proxy.cut();
        interrupted(next(&mut watch).await);
        if member.passes == No {
            member.check(&failed(next(&mut watch).await));
        } else {
            member.check(&interrupted(next(&mut watch).await));
            server.store("a", 3).await;
            for at in 4..=6 {
                assert_eq!(seq(next(&mut watch).await), at);
            }
        }
        assert!(proxy.is_done());
        drop(watch);
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_watch_that_is_cut_short_goes_on_exactly_where_it_was() {
    each(members::midway(), |when, member| async move {
        let (server, proxy, client) = setup().await;
        let mut options = options();
        options.markers = true;
        let mut watch = client.watch(options);
        let mut seen = Vec::new();
        loop {
            match next(&mut watch).await {
                Some(Ok(Item::Event(event))) => seen.push(event.seq().get()),
                // What comes next is one event.
                Some(Ok(Item::Marker(marker))) if marker.kind == MarkerKind::CaughtUp => break,
                Some(Ok(Item::Marker(_))) => {}
                other => panic!("{other:?}"),
            }
        }
        order(&proxy, when, &member, WATCH);
        server.store("a", 1).await;
        if member.passes == No {
            member.check(&failed(next(&mut watch).await));
        } else {
            member.check(&interrupted(next(&mut watch).await));
            server.store("a", 2).await;
            while seen.len() < 6 {
                if let Item::Event(event) = next(&mut watch).await.unwrap().unwrap() {
                    seen.push(event.seq().get());
                }
            }
            assert_eq!(seen, [1, 2, 3, 4, 5, 6]);
        }
        assert!(proxy.is_done());
        drop(watch);
        server.stop().await;
    })
    .await;
}

async fn kept(watch: &mut KeptWatch<MemoryStore>) -> Next {
    within("item", watch.next()).await
}

#[tokio::test]
async fn a_kept_watch_keeps_its_place_over_what_passes_and_over_what_does_not() {
    each(members::instead(), |when, member| async move {
        let (server, proxy, client) = setup().await;
        order(&proxy, when, &member, WATCH);
        let store = MemoryStore::default();
        let mut watch = client.watch_kept(options(), store.clone()).await.unwrap();
        let first = kept(&mut watch).await;
        if member.passes == Yes {
            member.check(&interrupted(first));
        } else {
            member.check(&failed(first));
            assert!(kept(&mut watch).await.is_none());
            watch = client.watch_kept(options(), store.clone()).await.unwrap();
        }
        assert_eq!(seq(kept(&mut watch).await), 1);
        assert_eq!(seq(kept(&mut watch).await), 2);
        // Asked for, and so done with, is the first alone.
        drop(watch);
        let mut again = client.watch_kept(options(), store).await.unwrap();
        let seen = seq(kept(&mut again).await);
        assert!(seen <= 2, "{seen} after a saved cursor of at most 1");
        drop(again);
        server.stop().await;
    })
    .await;
}

async fn heard(room: &mut Room) -> RoomItem {
    match within("room", room.next()).await {
        Ok(item) => item,
        Err(error) => panic!("{error:?}"),
    }
}

async fn text(room: &mut Room) -> String {
    loop {
        match heard(room).await {
            RoomItem::Message(message) => return message.content,
            RoomItem::Came(_) | RoomItem::Left(_) | RoomItem::Resumed => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn say(server: &TestServer, text: &str) {
    let direct = Client::new(&format!("http://{}", server.address)).unwrap();
    direct.say(&Saying::new("ops", "ann", text)).await.unwrap();
}

async fn check_room(room: &mut Room, member: &Member, passes: bool) -> bool {
    match within("room", room.next()).await {
        Ok(RoomItem::Interrupted { cause, .. }) if passes => member.check(&cause),
        Err(error) if !passes => member.check(&error),
        other => panic!("{other:?}"),
    }
    passes
}

const ROOM: &str = "/SubscribeMessages";

#[tokio::test]
async fn a_room_is_listened_to_over_all_that_passes() {
    each(members::instead_or_at_once(), |when, member| async move {
        let (server, proxy, client) = setup().await;
        say(&server, "one").await;
        order(&proxy, when, &member, ROOM);
        let mut room = client.room("ops", "bob", "0");
        if !check_room(&mut room, &member, member.passes == Yes).await {
            room = client.room("ops", "bob", "0");
        }
        assert_eq!(text(&mut room).await, "one");
        // And again, by one who has met it.
        order(&proxy, when, &member, ROOM);
        proxy.cut();
        assert!(matches!(heard(&mut room).await, RoomItem::Interrupted { .. }));
        say(&server, "two").await;
        if check_room(&mut room, &member, member.passes != No).await {
            assert_eq!(text(&mut room).await, "two");
        }
        assert!(proxy.is_done());
        drop(room);
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_room_that_is_cut_short_misses_no_message() {
    each(members::midway(), |when, member| async move {
        let (server, proxy, client) = setup().await;
        say(&server, "one").await;
        let mut room = client.room("ops", "", "0");
        assert_eq!(text(&mut room).await, "one");
        order(&proxy, when, &member, ROOM);
        say(&server, "two").await;
        if check_room(&mut room, &member, member.passes != No).await {
            say(&server, "three").await;
            assert_eq!(text(&mut room).await, "two");
            assert_eq!(text(&mut room).await, "three");
        }
        assert!(proxy.is_done());
        drop(room);
        server.stop().await;
    })
    .await;
}

async fn sample(metrics: &mut Metrics) {
    match within("sample", metrics.next()).await {
        Ok(MetricsItem::Sample(sample)) => assert!(!sample.is_empty()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn figures_go_on_over_all_that_passes() {
    let all = [members::instead_or_at_once(), members::midway()].concat();
    each(all, |when, member| async move {
        let (server, proxy, client) = setup().await;
        let mut metrics = client.metrics(1);
        sample(&mut metrics).await;
        order(&proxy, when, &member, "/StreamMetrics");
        if when != super::When::More {
            proxy.cut();
            let cut = within("cut", metrics.next()).await.unwrap();
            assert!(matches!(cut, MetricsItem::Interrupted { .. }), "{cut:?}");
        }
        match within("sample", metrics.next()).await {
            Ok(MetricsItem::Interrupted { cause, .. }) if member.passes != No => {
                member.check(&cause);
                sample(&mut metrics).await;
            }
            Err(error) if member.passes == No => member.check(&error),
            other => panic!("{other:?}"),
        }
        assert!(proxy.is_done());
        drop(metrics);
        server.stop().await;
    })
    .await;
}
