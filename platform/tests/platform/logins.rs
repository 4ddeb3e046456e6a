//! Logins that a site refuses are not tried again by every worker.

use redis::AsyncCommands;
use selextract_platform::{
    frontier::{
        Frontier,
        logins::{Trial, Verdict},
    },
    ledger::Secret,
};
use selextract_test_services::start;
use uuid::Uuid;

use crate::support::redis as connection;

#[tokio::test]
async fn new_credentials_are_tried_by_one_and_the_others_hear_what_came_of_it() {
    let url = start().redis_url().unwrap();
    let frontier = Frontier::connect_lazy(&Secret(url.clone())).unwrap();
    let (credentials, others) = (Uuid::now_v7(), Uuid::now_v7());
    let ask = async || frontier.try_credentials(credentials).await.unwrap();
    let tell = async |verdict| frontier.tried_credentials(credentials, verdict).await.unwrap();
    let ends_in = async || -> i64 {
        let key = format!("sx:login:{credentials}");
        connection(&url).await.ttl(key).await.unwrap()
    };
    assert_eq!((ask().await, ask().await), (Trial::Yours, Trial::UnderWay));
    assert!((1..=15).contains(&ends_in().await), "whoever tries may die");
    tell(Verdict::None).await;
    assert_eq!(ask().await, Trial::Yours, "the site was down");
    tell(Verdict::Refused("wrong")).await;
    assert_eq!(ask().await, Trial::Refused("wrong".to_owned()));
    assert!((800..=900).contains(&ends_in().await), "for a quarter of an hour");
    assert_eq!(
        frontier.try_credentials(others).await.unwrap(),
        Trial::Yours,
        "what was stored anew"
    );
    tell(Verdict::Good).await;
    assert_eq!((ask().await, ask().await), (Trial::Good, Trial::Good));
}
