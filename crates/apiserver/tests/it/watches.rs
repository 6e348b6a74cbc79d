//! Watching.

use serde_json::json;

use crate::cluster::{CONFIG_MAPS, Cluster, config_map};

fn is(kind: &str, name: &str) -> (String, String) {
    (kind.into(), name.into())
}

#[tokio::test]
async fn a_watch_shows_what_is_there_and_then_every_change() {
    let cluster = Cluster::new().await;
    cluster.post(CONFIG_MAPS, &config_map("a")).await;
    let mut events = cluster.watch(&format!("{CONFIG_MAPS}?watch=1")).await;
    assert_eq!(events.summary().await, is("ADDED", "a"));
    cluster.post(CONFIG_MAPS, &config_map("b")).await;
    cluster
        .patch(&format!("{CONFIG_MAPS}/a"), "merge-patch", &json!({"data": {"x": "2"}}))
        .await;
    let last = cluster.delete(&format!("{CONFIG_MAPS}/b"), &json!({})).await;
    assert_eq!(last.code, 200);
    assert_eq!(events.summary().await, is("ADDED", "b"));
    assert_eq!(events.summary().await, is("MODIFIED", "a"));
    let deleted = events.next().await.unwrap();
    assert_eq!(deleted["type"], "DELETED");
    let newest = store::Store::revision(&*cluster.store).await.unwrap();
    assert_eq!(
        deleted["object"]["metadata"]["resourceVersion"],
        newest.to_string(),
        "that of the deletion"
    );
}

#[tokio::test]
async fn selectors_make_objects_come_and_go() {
    let cluster = Cluster::new().await;
    let label = |value: &str| json!({"metadata": {"labels": {"k": value}}});
    let revision = cluster.post(CONFIG_MAPS, &config_map("a")).await.json()["metadata"]["resourceVersion"].clone();
    let from = revision.as_str().unwrap();
    let mut events = cluster
        .watch(&format!(
            "{CONFIG_MAPS}?watch=1&resourceVersion={from}&labelSelector=k%3Dv"
        ))
        .await;
    let mut other = cluster
        .watch(&format!(
            "/api/v1/watch/namespaces/default/configmaps/b?resourceVersion={from}"
        ))
        .await;
    for value in ["v", "v", "w", "v"] {
        cluster
            .patch(&format!("{CONFIG_MAPS}/a"), "merge-patch", &label(value))
            .await;
        cluster
            .patch(
                &format!("{CONFIG_MAPS}/a"),
                "merge-patch",
                &json!({"data": {"y": value}}),
            )
            .await;
    }
    cluster.delete(&format!("{CONFIG_MAPS}/a"), &json!({})).await;
    cluster.post(CONFIG_MAPS, &config_map("b")).await;
    for kind in ["ADDED", "MODIFIED", "DELETED", "ADDED", "MODIFIED", "DELETED"] {
        let event = events.next().await.unwrap();
        assert_eq!(event["type"], kind, "{event}");
        // What goes out of sight is shown as it was last seen.
        assert_eq!(event["object"]["metadata"]["labels"]["k"], "v", "{event}");
    }
    assert_eq!(other.summary().await, is("ADDED", "b"));
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark() {
    let cluster = Cluster::new().await;
    cluster.post(CONFIG_MAPS, &config_map("a")).await;
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut events = cluster.watch(&format!("{CONFIG_MAPS}?{query}")).await;
    assert_eq!(events.summary().await, is("ADDED", "a"));
    let end = events.next().await.unwrap();
    assert_eq!(end["type"], "BOOKMARK");
    assert_eq!(end["object"]["kind"], "ConfigMap");
    assert_eq!(
        end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    cluster.post(CONFIG_MAPS, &config_map("b")).await;
    assert_eq!(events.summary().await, is("ADDED", "b"));
}

#[tokio::test]
async fn history_that_is_gone_is_told_in_the_stream() {
    let cluster = Cluster::new().await;
    let revision = cluster.post(CONFIG_MAPS, &config_map("a")).await.json()["metadata"]["resourceVersion"].clone();
    cluster.post(CONFIG_MAPS, &config_map("b")).await;
    cluster.post(CONFIG_MAPS, &config_map("c")).await;
    let newest = store::Store::revision(&*cluster.store).await.unwrap();
    store::Store::compact(&*cluster.store, newest).await.unwrap();
    let from = revision.as_str().unwrap();
    let mut events = cluster
        .watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={from}"))
        .await;
    let error = events.next().await.unwrap();
    assert_eq!(
        (error["type"].as_str(), error["object"]["code"].as_i64()),
        (Some("ERROR"), Some(410))
    );
    assert!(
        error["object"]["message"]
            .as_str()
            .unwrap()
            .starts_with(&format!("too old resource version: {from} ("))
    );
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn watches_end_when_their_time_is_over_or_the_server_ends() {
    let cluster = Cluster::new().await;
    let mut short = cluster.watch("/api/v1/nodes?watch=1&timeoutSeconds=1").await;
    assert!(short.next().await.is_none());
    let mut long = cluster.watch("/api/v1/nodes?watch=1").await;
    cluster.server.end_watches();
    assert!(long.next().await.is_none());
}
