//! The services start, and each test gets a database of its own.

use selextract_test_services as services;

#[test]
fn a_test_gets_a_database_of_its_own_and_reaches_it_through_the_pooler() {
    let services = services::start();
    let (one, other) = (services.database().unwrap(), services.database().unwrap());
    services.sql(&one.name, "CREATE TABLE only_here ()").unwrap();
    assert_eq!(
        services
            .sql(&other.name, "SELECT to_regclass('only_here') IS NULL")
            .unwrap(),
        "t"
    );
    assert!(one.url.contains("selextract_app") && one.url != one.direct_url);
    assert_ne!(services.redis_url().unwrap(), services.redis_url().unwrap());
}

#[test]
fn a_killed_service_is_gone_and_its_neighbours_stay() {
    let services = services::start();
    let own = services.valkey().unwrap();
    own.process().freeze().unwrap();
    own.process().thaw().unwrap();
    own.process().kill().unwrap();
    let port = own
        .url(0)
        .rsplit(':')
        .next()
        .and_then(|p| p.split('/').next())
        .unwrap()
        .parse::<u16>()
        .unwrap();
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    assert_eq!(services.sql("postgres", "SELECT 1").unwrap(), "1");
}
