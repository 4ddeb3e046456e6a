//! Figures: owners' counters, the backlog, analytics.

use selextract_platform::ledger::{UserId, claims::Ending, stats::OwnerStats, users::Role};

use crate::support::{LEASE, Room, error};

#[tokio::test]
async fn folded_counters_say_what_unfolded_ones_said() {
    let (room, owner) = (Room::new().await, UserId::new());
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(room.accept(owner).await);
    }
    room.accept(UserId::new()).await;
    let endings = [Ending::Succeeded, Ending::Failed(error()), Ending::Canceled];
    for (id, ending) in ids.iter().zip(&endings) {
        let claim = room.claim(*id).await.unwrap();
        room.commit_and_let_go(&claim, 1, ending, 7).await;
    }
    let expected = OwnerStats {
        total: 5,
        open: 2,
        succeeded: 1,
        failed: 1,
        canceled: 1,
        records: 3,
        pages: 3,
        compute_units: 21,
    };
    assert_eq!(room.ledger.owner_stats(owner).await.unwrap(), expected);
    let folds = tokio::join!(room.keeper.fold_counters(), room.ledger.fold_counters());
    assert_eq!(
        folds.0.unwrap() + folds.1.unwrap(),
        12,
        "each delta once, those of pages too"
    );
    assert_eq!(room.ledger.owner_stats(owner).await.unwrap(), expected);
    assert_eq!(room.number("SELECT count(*) FROM owner_counter_deltas").await, 0);
    room.ledger.cancel(Some(owner), ids[3]).await.unwrap();
    assert_eq!(room.ledger.owner_stats(owner).await.unwrap().canceled, 2);
    room.keeper.fold_counters().await.unwrap();
    assert_eq!(room.ledger.owner_stats(owner).await.unwrap().open, 1);
}

#[tokio::test]
async fn who_signed_in_or_had_a_task_accepted_is_active_for_thirty_days() {
    let room = Room::new().await;
    let user = async |name| room.ledger.create_user(name, Role::Member, "a-hash").await.unwrap();
    let (visitor, client) = (user("visitor").await, user("client").await);
    room.ledger.start_session(visitor, &[1; 32], LEASE).await.unwrap();
    let id = room.accept(client).await;
    room.keeper.fold_counters().await.unwrap();
    assert_eq!(active(&room).await, "2");
    // Nothing but time takes an owner out again; the end of a task is nobody's visit.
    room.sql("UPDATE owner_counters SET active_at = now() - interval '31 days'")
        .await;
    let lease = room.claim(id).await.unwrap().lease();
    room.ledger.finish(lease, &Ending::Succeeded, 1).await.unwrap().unwrap();
    room.keeper.fold_counters().await.unwrap();
    assert_eq!(active(&room).await, "0");
    room.ledger.start_session(client, &[2; 32], LEASE).await.unwrap();
    room.keeper.fold_counters().await.unwrap();
    assert_eq!(active(&room).await, "1");
}

async fn active(room: &Room) -> String {
    let figures = room.keeper.figures().await;
    let found = figures.iter().find(|figure| figure.name() == "selextract_active_users");
    found.unwrap().value().to_string()
}

#[tokio::test]
async fn the_backlog_and_the_analytics_count_what_is_there() {
    let (room, owner) = (Room::new().await, UserId::new());
    assert_eq!(room.keeper.backlog().await.unwrap().oldest_due_seconds.to_bits(), 0);
    assert_eq!(room.ledger.analytics(3600).await.unwrap().p50_seconds, None);
    let ids = [
        room.accept(owner).await,
        room.accept(owner).await,
        room.accept(owner).await,
    ];
    let lease = room.claim(ids[0]).await.unwrap().lease();
    room.ledger.finish(lease, &Ending::Succeeded, 2).await.unwrap().unwrap();
    room.claim(ids[1]).await.unwrap();
    let backlog = room.keeper.backlog().await.unwrap();
    assert_eq!((backlog.pending, backlog.due, backlog.running), (1, 1, 1));
    assert!(backlog.oldest_due_seconds > 0.0);
    let analytics = room.ledger.analytics(3600).await.unwrap();
    assert_eq!((analytics.tasks, analytics.succeeded, analytics.owners), (3, 1, 1));
    assert!(analytics.p95_seconds.unwrap() >= 0.0);
}
