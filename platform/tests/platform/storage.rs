//! How much room large values take (the guide: "Use compression for large values").

use selextract_platform::ledger::{UserId, tasks::NewTask};
use selextract_task::TaskSpec;

use crate::support::{Room, new_task};

/// A spec of so many fields, and its length as JSON.
fn spec(fields: usize) -> (TaskSpec, i64) {
    let fields: Vec<_> = (0..fields)
        .map(|n| serde_json::json!({ "name": format!("field_{n}"), "selector": format!("div.product > span.value-{n}") }))
        .collect();
    let spec = serde_json::json!({ "url": "http://site.test/list", "items": "li", "fields": fields });
    let length = i64::try_from(spec.to_string().len()).unwrap();
    (serde_json::from_value(spec).unwrap(), length)
}

#[tokio::test]
async fn a_stored_spec_above_two_kibibytes_is_compressed() {
    let room = Room::new().await;
    for (fields, compressed) in [(2, false), (60, true)] {
        let (spec, length) = spec(fields);
        assert_eq!(length > 2048, compressed, "{length}");
        let task = NewTask { spec, ..new_task() };
        let id = room.ledger.accept(UserId::new(), &task, None).await.unwrap().id;
        let by = format!("SELECT coalesce(pg_column_compression(spec), 'not') FROM tasks WHERE id = '{id}'");
        let stored = room
            .number(&format!(
                "SELECT pg_column_size(spec)::bigint FROM tasks WHERE id = '{id}'"
            ))
            .await;
        if compressed {
            assert_ne!(room.texts(&by).await, ["not"], "{stored} bytes of {length}");
            assert!(stored * 2 < length, "{stored} bytes of {length}");
        } else {
            assert_eq!(room.texts(&by).await, ["not"]);
        }
    }
}
