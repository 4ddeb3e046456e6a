//! Artifacts in a bucket: an object store that checks signatures, its TLS, its failures, and what is removed from it.

use std::{fs, path::PathBuf};

use selextract_platform::{
    artifacts::{ArtifactSettings, Store},
    ledger::{Secret, TaskId, UserId, claims::Fenced},
    objects::{Bucket, ObjectError, Objects},
};
use selextract_test_services::{ObjectStore, PASSWORD};

use crate::{
    artifacts::{artifact, content, noise, page_with},
    support::Room,
};

fn settings(endpoint: String) -> ArtifactSettings {
    let _ = rustls::crypto::ring::default_provider().install_default();
    ArtifactSettings {
        artifact_store: Store::S3,
        s3_bucket: Some(ObjectStore::BUCKET.to_owned()),
        s3_region: "eu-central-1".to_owned(),
        s3_endpoint: Some(endpoint),
        s3_force_path_style: true,
        s3_prefix: "team/blue".to_owned(),
        s3_access_key_id: Some(Secret(ObjectStore::ACCESS_KEY_ID.to_owned())),
        s3_secret_access_key: Some(Secret(PASSWORD.to_owned())),
        ..ArtifactSettings::default()
    }
}

/// A ledger that keeps artifacts in this store, for worker and keeper.
async fn room(endpoint: String) -> Room {
    let home = settings(endpoint).home().unwrap();
    let room = Room::new().await;
    Room {
        ledger: room.ledger.with_artifacts(home.clone()),
        keeper: room.keeper.with_artifacts(home),
        ..room
    }
}

fn bucket(endpoint: String) -> Bucket {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Bucket {
        name: ObjectStore::BUCKET.to_owned(),
        region: "eu-central-1".to_owned(),
        endpoint: Some(endpoint),
        path_style: true,
        access_key_id: Secret(ObjectStore::ACCESS_KEY_ID.to_owned()),
        secret_access_key: Secret(PASSWORD.to_owned()),
        authority: None,
        prefix: "team/blue".to_owned(),
    }
}

async fn is_there(objects: &Objects, key: &str) -> bool {
    let read = objects.read(key, 0..1).await;
    if read.as_ref().is_err_and(ObjectError::is_missing) {
        return false;
    }
    read.unwrap();
    true
}

async fn keys(room: &Room, id: TaskId) -> Vec<String> {
    room.texts(&format!(
        "SELECT object FROM artifacts WHERE task_id = '{id}' ORDER BY id"
    ))
    .await
}

#[tokio::test]
async fn an_artifact_in_a_bucket_reads_back_and_is_removed_with_its_run() {
    let store = ObjectStore::start(None).unwrap();
    let (room, owner) = (room(store.endpoint()).await, UserId::new());
    let objects = Objects::connect_lazy(&bucket(store.endpoint())).unwrap();
    let id = room.accept(owner).await;
    let claim = room.claim(id).await.unwrap();
    let shots = [
        artifact("front page", "image/png", noise(1_300_000)),
        artifact("dom", "text/html", b"<p>here</p>".to_vec()),
    ];
    room.commit(&claim, &page_with(1, shots.to_vec())).await.unwrap();
    let found = room.artifacts(id).await;
    for (found, new) in found.iter().zip(&shots) {
        assert_eq!(content(&room.ledger, found).await, new.bytes);
    }
    let keys = keys(&room, id).await;
    let begin = format!("team/blue/{id}/1/{}-front-page.png", found[0].id);
    assert_eq!(keys[0], begin);
    assert_eq!(room.number("SELECT count(*) FROM artifact_chunks").await, 0);
    assert_eq!(
        room.keeper.remove_objects().await.unwrap().gone,
        0,
        "nothing is removed that is referred to"
    );

    room.ledger.cancel(None, id).await.unwrap();
    room.expire_lease(id).await;
    room.keeper.sweep().await.unwrap();
    assert_eq!(room.ledger.delete(None, id).await.unwrap(), Some(true));
    assert!(is_there(&objects, &keys[0]).await, "the keeper has not come yet");
    assert_eq!(room.keeper.remove_objects().await.unwrap().gone, 2);
    for key in &keys {
        assert!(!is_there(&objects, key).await, "{key}");
    }
    assert_eq!(room.number("SELECT count(*) FROM artifact_removals").await, 0);
}

#[tokio::test]
async fn the_object_of_a_page_that_was_not_committed_is_found_and_removed() {
    let store = ObjectStore::start(None).unwrap();
    let (room, owner) = (room(store.endpoint()).await, UserId::new());
    let objects = Objects::connect_lazy(&bucket(store.endpoint())).unwrap();
    let id = room.accept(owner).await;
    let claim = room.claim(id).await.unwrap();
    let page = page_with(1, vec![artifact("front", "image/png", vec![1; 10])]);
    room.commit(&claim, &page).await.unwrap();
    assert_eq!(room.commit(&claim, &page).await, Err(Fenced));
    let again = room.texts("SELECT object FROM artifact_removals").await;
    assert_eq!(again.len(), 1, "the second writer's object is known");
    assert!(is_there(&objects, &again[0]).await);
    // One whose writer died between the upload and the commit.
    let orphan = "team/blue/dead/1/x.png";
    objects.put(orphan, vec![1].into(), "image/png").await.unwrap();
    room.sql(&format!(
        "INSERT INTO artifact_uploads (id, task_id, user_id, size, object, begun_at)
         VALUES (gen_random_uuid(), '{id}', '{owner}', 1, '{orphan}', now() - interval '2 hours')"
    ))
    .await;
    assert_eq!(room.keeper.remove_abandoned_uploads().await.unwrap(), 1);
    assert_eq!(room.keeper.remove_objects().await.unwrap().gone, 2);
    assert!(!is_there(&objects, orphan).await && !is_there(&objects, &again[0]).await);
    assert!(
        is_there(&objects, &keys(&room, id).await[0]).await,
        "what was committed stays"
    );
}

#[tokio::test]
async fn a_store_that_is_away_costs_an_artifact_and_never_the_page_and_removals_wait_for_it() {
    let store = ObjectStore::start(None).unwrap();
    let (room, owner) = (room(store.endpoint()).await, UserId::new());
    let id = room.accept(owner).await;
    let claim = room.claim(id).await.unwrap();
    let shot = || vec![artifact("front", "image/png", vec![1; 10])];
    room.commit(&claim, &page_with(1, shot())).await.unwrap();
    store.process().kill().unwrap();
    room.commit(&claim, &page_with(2, shot())).await.unwrap();
    let found = room.artifacts(id).await;
    assert_eq!(found[1].left_out.as_deref(), Some("the artifact store did not take it"));
    let task = room.task(id).await;
    assert_eq!((task.pages, task.records, task.warnings), (2, 2, 1));
    assert!(
        room.ledger
            .artifact_chunk(&found[0], 0)
            .await
            .unwrap_err()
            .is_unavailable()
    );

    room.sql("INSERT INTO artifact_removals (object) VALUES ('team/blue/x')")
        .await;
    let removed = room.keeper.remove_objects().await.unwrap();
    assert_eq!((removed.gone, removed.left), (0, 1));
    assert_eq!(
        room.keeper.remove_objects().await.unwrap().left,
        0,
        "it is not due again at once"
    );
    let later = "SELECT count(*) FROM artifact_removals WHERE attempts = 1 AND due_at BETWEEN now() AND now() + interval '61 seconds'";
    assert_eq!(room.number(later).await, 1);
}

#[tokio::test]
async fn a_wrong_secret_key_is_refused_by_the_store() {
    let store = ObjectStore::start(None).unwrap();
    let wrong = Bucket {
        secret_access_key: Secret("another".to_owned()),
        ..bucket(store.endpoint())
    };
    let objects = Objects::connect_lazy(&wrong).unwrap();
    let error = objects.put("a", vec![1].into(), "image/png").await.unwrap_err();
    let ObjectError::Request { source, .. } = &error else {
        panic!("{error}")
    };
    assert!(source.to_string().contains("403"), "{source}");
}

#[tokio::test]
async fn a_store_with_an_authority_of_its_own_is_trusted_when_the_authority_is_given() {
    let key = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let pem = key.cert.pem();
    let store = ObjectStore::start(Some((&pem, &key.signing_key.serialize_pem()))).unwrap();
    let folder = std::env::temp_dir().join(format!("selextract-ca-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let path: PathBuf = folder.join("ca.crt");
    fs::write(&path, &pem).unwrap();
    let trusting = ArtifactSettings {
        s3_ca: Some(path),
        ..settings(store.endpoint())
    };
    let room = Room::new().await;
    let ledger = room.ledger.clone().with_artifacts(trusting.home().unwrap());
    let room = Room { ledger, ..room };
    let id = room.accept(UserId::new()).await;
    let claim = room.claim(id).await.unwrap();
    let shot = vec![artifact("front", "image/png", vec![9; 10])];
    room.commit(&claim, &page_with(1, shot)).await.unwrap();
    let found = room.artifacts(id).await;
    assert_eq!(content(&room.ledger, &found[0]).await, vec![9; 10]);
    fs::remove_dir_all(folder).unwrap();

    let doubting = Objects::connect_lazy(&bucket(store.endpoint())).unwrap();
    assert!(doubting.put("a", vec![1].into(), "image/png").await.is_err());
}
