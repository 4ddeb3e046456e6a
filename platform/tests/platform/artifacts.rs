//! Artifacts: seen with their page or not at all, counted against a quota, and gone with their run.

use std::time::Duration;

use jiff::Timestamp;
use selextract_platform::ledger::{
    Ledger, TaskId, UserId,
    artifacts::{Artifact, CHUNK, NewArtifact},
    claims::{Claim, Ending, Fenced, NewPage},
    quotas::Quotas,
};

use crate::support::{LEASE, Room, page};

pub fn artifact(name: &str, media_type: &str, bytes: Vec<u8>) -> NewArtifact {
    NewArtifact {
        name: name.to_owned(),
        media_type: media_type.to_owned(),
        bytes,
    }
}

/// Bytes that do not compress, longer than a chunk.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        })
        .collect()
}

pub fn page_with(number: i32, artifacts: Vec<NewArtifact>) -> NewPage {
    NewPage {
        artifacts,
        ..page(number)
    }
}

pub async fn content(ledger: &Ledger, artifact: &Artifact) -> Vec<u8> {
    let mut content = Vec::new();
    for number in 0..artifact.chunks() {
        content.extend_from_slice(&ledger.artifact_chunk(artifact, number).await.unwrap());
    }
    content
}

impl Room {
    pub async fn commit(&self, claim: &Claim, page: &NewPage) -> Result<(), Fenced> {
        let committed = self.ledger.commit_page(claim.lease(), page, LEASE).await.unwrap();
        committed.map(drop)
    }

    pub async fn artifacts(&self, id: TaskId) -> Vec<Artifact> {
        self.ledger.artifacts(id, None, 100).await.unwrap()
    }

    async fn used(&self, owner: UserId) -> i64 {
        self.ledger.usage(owner).await.unwrap().artifact_bytes
    }

    /// Rows that belong to contents, wherever they are.
    async fn leftovers(&self) -> i64 {
        self.number("SELECT (SELECT count(*) FROM artifact_chunks) + (SELECT count(*) FROM artifact_uploads)")
            .await
    }
}

#[tokio::test]
async fn an_artifact_is_seen_with_its_page_and_reads_back_as_it_was() {
    let (room, owner) = (Room::new().await, UserId::new());
    let id = room.accept(owner).await;
    let claim = room.claim(id).await.unwrap();
    let html = "<li>ä</li>".repeat(100_000).into_bytes();
    let shots = [
        artifact("front", "image/png", noise(CHUNK + 77)),
        artifact("dom", "text/html", html.clone()),
        artifact("nothing", "application/pdf", Vec::new()),
    ];
    room.commit(&claim, &page(1)).await.unwrap();
    room.commit(&claim, &page_with(2, shots.to_vec())).await.unwrap();
    let found = room.artifacts(id).await;
    let told: Vec<_> = found
        .iter()
        .map(|a| {
            (
                a.page,
                a.name.as_str(),
                a.media_type.as_str(),
                usize::try_from(a.size).unwrap(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            (2, "front", "image/png", CHUNK + 77),
            (2, "dom", "text/html; charset=utf-8", html.len()),
            (2, "nothing", "application/pdf", 0),
        ]
    );
    for (found, new) in found.iter().zip(&shots) {
        assert_eq!(content(&room.ledger, found).await, new.bytes, "{}", new.name);
    }
    let stored = room
        .number("SELECT sum(length(bytes)) FROM artifact_chunks WHERE artifact IN (SELECT id FROM artifacts WHERE name = 'dom')")
        .await;
    assert!(
        stored < 20_000,
        "text is stored compressed, {stored} bytes of {}",
        html.len()
    );
    let next = room.ledger.artifacts(id, Some(found[0].id), 1).await.unwrap();
    assert_eq!(next, found[1..2], "the list goes on behind a key");
    assert_eq!(room.used(owner).await, i64::try_from(CHUNK + 77 + html.len()).unwrap());
    assert_eq!(room.number("SELECT count(*) FROM artifact_uploads").await, 0);
}

#[tokio::test]
async fn what_a_fenced_writer_brought_is_never_seen_and_goes_at_once() {
    let (room, owner) = (Room::new().await, UserId::new());
    let id = room.accept(owner).await;
    let frozen = room.claim(id).await.unwrap();
    room.expire_lease(id).await;
    room.keeper.sweep().await.unwrap();
    let new = room.claim(id).await.unwrap();
    let shot = |byte| vec![artifact("front", "image/png", vec![byte; 100])];
    assert_eq!(room.commit(&frozen, &page_with(1, shot(1))).await, Err(Fenced));
    assert_eq!(room.leftovers().await, 0, "it was refused before it wrote");
    room.commit(&new, &page_with(1, shot(2))).await.unwrap();
    // The page is there already: what is written for it again finds no place.
    assert_eq!(room.commit(&new, &page_with(1, shot(3))).await, Err(Fenced));
    let found = room.artifacts(id).await;
    assert_eq!(found.len(), 1);
    assert_eq!(content(&room.ledger, &found[0]).await, vec![2; 100]);
    assert_eq!((room.leftovers().await, room.used(owner).await), (1, 100));
}

#[tokio::test]
async fn beyond_the_quota_artifacts_are_left_out_with_a_warning_and_the_run_goes_on() {
    let room = Room::new().await;
    let owner = room.ledger.namespace_owner("shop").await.unwrap();
    let quotas = Quotas {
        artifact_bytes: Some(250),
        ..Quotas::default()
    };
    room.ledger.set_quotas(owner, quotas).await.unwrap();
    let id = room.accept(owner).await;
    let claim = room.claim(id).await.unwrap();
    let shots = |count| vec![artifact("front", "image/png", vec![7; 100]); count];
    room.commit(&claim, &page_with(1, shots(3))).await.unwrap();
    let found = room.artifacts(id).await;
    let left_out: Vec<_> = found.iter().map(|a| a.left_out.as_deref()).collect();
    let reason = "the quota artifact_bytes is 250 and 200 are used; this has 100";
    assert_eq!(left_out, [None, None, Some(reason)]);
    assert_eq!(room.task(id).await.warnings, 1);
    let usage = room.ledger.usage(owner).await.unwrap();
    assert_eq!((usage.artifact_bytes, usage.artifact_limit), (200, 250));
    room.ledger
        .finish(claim.lease(), &Ending::Succeeded, 0)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(room.task(id).await.status, "succeeded");
    assert_eq!(room.ledger.delete(None, id).await.unwrap(), Some(true));
    assert_eq!(
        (room.used(owner).await, room.leftovers().await),
        (0, 0),
        "there is room again"
    );
    assert!(room.artifacts(id).await.is_empty());
}

#[tokio::test]
async fn sixteen_writers_of_one_owner_stay_within_his_quota() {
    let room = Room::new().await;
    let owner = room.ledger.namespace_owner("shop").await.unwrap();
    let quotas = Quotas {
        artifact_bytes: Some(1_000),
        ..Quotas::default()
    };
    room.ledger.set_quotas(owner, quotas).await.unwrap();
    let mut claims = Vec::new();
    for _ in 0..16 {
        let id = room.accept(owner).await;
        claims.push(room.claim(id).await.unwrap());
    }
    let page = page_with(1, vec![artifact("front", "image/png", vec![7; 90]); 2]);
    let all = futures::future::join_all(claims.iter().map(|claim| room.commit(claim, &page))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(
        room.number("SELECT count(*) FROM artifacts WHERE left_out IS NULL")
            .await,
        11
    );
    assert_eq!(
        room.number("SELECT count(*) FROM artifacts WHERE left_out IS NOT NULL")
            .await,
        21
    );
    assert_eq!(room.used(owner).await, 990);
}

#[tokio::test]
async fn artifacts_go_with_their_run_when_its_time_is_over() {
    let (room, owner) = (Room::new().await, UserId::new());
    let ids = [room.accept(owner).await, room.accept(owner).await];
    for id in ids {
        let claim = room.claim(id).await.unwrap();
        let shot = vec![artifact("front", "image/png", noise(3 * CHUNK))];
        room.commit(&claim, &page_with(1, shot)).await.unwrap();
        let ended = room.ledger.finish(claim.lease(), &Ending::Succeeded, 0).await;
        ended.unwrap().unwrap();
    }
    room.sql(&format!(
        "UPDATE tasks SET expires_at = now() - interval '1 second' WHERE id = '{}'",
        ids[0]
    ))
    .await;
    assert_eq!(room.keeper.expire_runs().await.unwrap(), 1);
    assert!(room.artifacts(ids[0]).await.is_empty());
    assert_eq!(room.artifacts(ids[1]).await.len(), 1);
    assert_eq!(room.leftovers().await, 3);
    assert_eq!(room.used(owner).await, i64::try_from(3 * CHUNK).unwrap());
}

#[tokio::test]
async fn what_a_dead_writer_left_is_removed_after_an_hour_and_what_is_younger_stays() {
    let (room, owner) = (Room::new().await, UserId::new());
    let id = room.accept(owner).await;
    let claim = room.claim(id).await.unwrap();
    room.commit(&claim, &page_with(1, vec![artifact("front", "image/png", vec![1; 10])]))
        .await
        .unwrap();
    for (id_, hours) in [("old", 2), ("young", 0)] {
        room.sql(&format!(
            "WITH u AS (INSERT INTO artifact_uploads (id, task_id, user_id, size, begun_at)
                        VALUES (md5('{id_}')::uuid, '{id}', '{owner}', 5, now() - interval '{hours} hours') RETURNING id)
             INSERT INTO artifact_chunks (task_id, artifact, number, bytes) SELECT '{id}', id, 0, 'x' FROM u;
             UPDATE artifact_usage SET bytes = bytes + 5",
        ))
        .await;
    }
    assert_eq!(room.used(owner).await, 20);
    assert_eq!(room.keeper.remove_abandoned_uploads().await.unwrap(), 1);
    assert_eq!(room.keeper.remove_abandoned_uploads().await.unwrap(), 0);
    assert_eq!((room.used(owner).await, room.leftovers().await), (15, 3));
    assert_eq!(room.artifacts(id).await.len(), 1);
}

#[tokio::test]
async fn a_month_beyond_the_retention_gives_its_bytes_back() {
    let (room, owner) = (Room::new().await, UserId::new());
    let long_ago = Timestamp::now() - jiff::SignedDuration::from_hours(24 * 150);
    room.keeper.make_partitions(long_ago, 0).await.unwrap();
    let old = TaskId::of_tick("any", long_ago.as_millisecond());
    room.sql(&format!(
        "INSERT INTO artifacts (id, task_id, page, user_id, name, media_type, size, sha256, object, compressed)
         VALUES (gen_random_uuid(), '{old}', 1, '{owner}', 'front', 'image/png', 60, '', 'team/1/front.png', false),
                (gen_random_uuid(), '{old}', 1, '{owner}', 'dom', 'text/html', 20, '', NULL, true);
         INSERT INTO artifact_usage VALUES ('{owner}', 100)"
    ))
    .await;
    let retention = Duration::from_hours(24 * 90);
    let dropped = room.keeper.drop_partitions(Timestamp::now(), retention).await.unwrap();
    let ours = dropped.iter().filter(|name| name.starts_with("artifact")).count();
    assert_eq!(ours, 2, "{dropped:?}");
    assert_eq!(room.used(owner).await, 20);
    assert_eq!(
        room.texts("SELECT object FROM artifact_removals").await,
        ["team/1/front.png"]
    );
}

#[tokio::test]
async fn chunks_are_stored_outside_their_row_and_not_compressed_again() {
    let room = Room::new().await;
    let storage = room
        .texts(
            "SELECT DISTINCT a.attstorage::text FROM pg_attribute a
             WHERE a.attname = 'bytes' AND a.attrelid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'artifact_chunks'::regclass)",
        )
        .await;
    assert_eq!(storage, ["e"]);
}
