//! Users, sessions and API keys.

use std::time::Duration;

use selextract_platform::ledger::{
    LedgerError, UserId,
    users::{Refresh, Role},
};

use crate::support::{LEASE, Room};

async fn person(room: &Room, name: &str) -> UserId {
    room.ledger.create_user(name, Role::Member, "a-hash").await.unwrap()
}

#[tokio::test]
async fn a_name_is_given_once_and_people_are_listed_by_name() {
    let room = Room::new().await;
    let id = person(&room, "mia").await;
    person(&room, "ada").await;
    let taken = room.ledger.create_user("mia", Role::Admin, "x").await;
    assert!(matches!(taken, Err(LedgerError::NameTaken { .. })), "{taken:?}");
    room.ledger.namespace_owner("shop").await.unwrap();
    let names = |users: Vec<selextract_platform::ledger::users::User>| {
        users.into_iter().map(|user| user.name).collect::<Vec<_>>()
    };
    assert_eq!(names(room.ledger.users(None, 10).await.unwrap()), ["ada", "mia"]);
    assert_eq!(names(room.ledger.users(Some("ada"), 10).await.unwrap()), ["mia"]);
    assert_eq!(room.ledger.user(id).await.unwrap().unwrap().role, "member");
}

#[tokio::test]
async fn a_namespace_has_one_owner_whoever_asks_first() {
    let room = Room::new().await;
    let asked = (0..8).map(|_| room.ledger.namespace_owner("shop"));
    let owners = futures::future::try_join_all(asked).await.unwrap();
    assert!(owners.iter().all(|owner| *owner == owners[0]));
    assert_ne!(room.ledger.namespace_owner("other").await.unwrap(), owners[0]);
}

#[tokio::test]
async fn a_refresh_token_is_good_once_and_its_reuse_ends_the_whole_session() {
    let room = Room::new().await;
    let user = person(&room, "mia").await;
    let (first, second, third) = ([1; 32], [2; 32], [3; 32]);
    room.ledger.start_session(user, &first, LEASE).await.unwrap();
    room.ledger.start_session(user, &[9; 32], LEASE).await.unwrap();
    let rotated = room.ledger.rotate_session(&first, &second, LEASE).await.unwrap();
    assert!(
        matches!(rotated, Refresh::Rotated(ref who) if who.id == user),
        "{rotated:?}"
    );
    assert!(matches!(
        room.ledger.rotate_session(&second, &third, LEASE).await.unwrap(),
        Refresh::Rotated(_)
    ));
    assert!(matches!(
        room.ledger.rotate_session(&first, &[4; 32], LEASE).await.unwrap(),
        Refresh::Reused
    ));
    assert!(matches!(
        room.ledger.rotate_session(&third, &[5; 32], LEASE).await.unwrap(),
        Refresh::Invalid
    ));
    let other = room.ledger.rotate_session(&[9; 32], &[8; 32], LEASE).await.unwrap();
    assert!(
        matches!(other, Refresh::Rotated(_)),
        "another session of the same user stays"
    );
}

#[tokio::test]
async fn of_two_uses_of_one_refresh_token_at_once_one_is_the_thief() {
    let room = Room::new().await;
    let user = person(&room, "mia").await;
    room.ledger.start_session(user, &[1; 32], LEASE).await.unwrap();
    let (one, other) = tokio::join!(
        room.ledger.rotate_session(&[1; 32], &[2; 32], LEASE),
        room.ledger.rotate_session(&[1; 32], &[3; 32], LEASE)
    );
    let answers = [one.unwrap(), other.unwrap()];
    assert_eq!(answers.iter().filter(|a| matches!(a, Refresh::Rotated(_))).count(), 1);
    assert_eq!(answers.iter().filter(|a| matches!(a, Refresh::Reused)).count(), 1);
    assert_eq!(room.number("SELECT count(*) FROM refresh_tokens").await, 0);
}

#[tokio::test]
async fn expired_ended_and_disabled_sessions_are_invalid() {
    let room = Room::new().await;
    let user = person(&room, "mia").await;
    room.ledger.start_session(user, &[1; 32], Duration::ZERO).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert!(matches!(
        room.ledger.rotate_session(&[1; 32], &[2; 32], LEASE).await.unwrap(),
        Refresh::Invalid
    ));
    room.ledger.start_session(user, &[3; 32], LEASE).await.unwrap();
    room.ledger.end_session(&[3; 32]).await.unwrap();
    room.ledger.end_session(&[3; 32]).await.unwrap();
    assert!(matches!(
        room.ledger.rotate_session(&[3; 32], &[4; 32], LEASE).await.unwrap(),
        Refresh::Invalid
    ));
    room.ledger.start_session(user, &[5; 32], LEASE).await.unwrap();
    assert!(room.ledger.disable_user(user).await.unwrap());
    assert!(matches!(
        room.ledger.rotate_session(&[5; 32], &[6; 32], LEASE).await.unwrap(),
        Refresh::Invalid
    ));
}

#[tokio::test]
async fn an_api_key_is_good_until_it_is_revoked_expires_or_its_user_is_disabled() {
    let room = Room::new().await;
    let (user, stranger) = (person(&room, "mia").await, person(&room, "ada").await);
    let key = room
        .ledger
        .create_api_key(user, "ci", "sx_1", &[1; 32], None)
        .await
        .unwrap();
    room.ledger
        .create_api_key(user, "old", "sx_2", &[2; 32], Some(Duration::ZERO))
        .await
        .unwrap();
    room.ledger
        .create_api_key(user, "new", "sx_3", &[3; 32], Some(LEASE))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(room.ledger.user_of_api_key(&[1; 32]).await.unwrap().unwrap().id, user);
    assert!(
        room.ledger.user_of_api_key(&[2; 32]).await.unwrap().is_none(),
        "expired"
    );
    assert!(
        room.ledger.user_of_api_key(&[7; 32]).await.unwrap().is_none(),
        "unknown"
    );
    let listed = room.ledger.api_keys(user).await.unwrap();
    assert_eq!(
        listed.iter().map(|key| key.name.as_str()).collect::<Vec<_>>(),
        ["new", "old", "ci"]
    );
    assert!(listed[2].last_used_at.is_some() && listed[0].last_used_at.is_none());
    assert!(!room.ledger.revoke_api_key(stranger, key.id).await.unwrap());
    assert!(room.ledger.revoke_api_key(user, key.id).await.unwrap());
    assert!(
        room.ledger.user_of_api_key(&[1; 32]).await.unwrap().is_none(),
        "revoked"
    );
    assert!(room.ledger.user_of_api_key(&[3; 32]).await.unwrap().is_some());
    room.ledger.disable_user(user).await.unwrap();
    assert!(
        room.ledger.user_of_api_key(&[3; 32]).await.unwrap().is_none(),
        "disabled"
    );
}
