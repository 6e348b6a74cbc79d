//! Writing, reading, listing and deleting objects.

use serde_json::json;

use crate::cluster::{CONFIG_MAPS, Cluster, config_map};

const MODIFIED: &str = "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again";

#[tokio::test]
async fn a_cluster_begins_with_its_namespaces_classes_and_service() {
    let cluster = Cluster::new().await;
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        let found = cluster.get(&format!("/api/v1/namespaces/{name}")).await;
        assert_eq!(found.json()["status"]["phase"], "Active", "{name}");
    }
    let class = cluster
        .get("/apis/scheduling.k8s.io/v1/priorityclasses/system-node-critical")
        .await
        .json();
    assert_eq!(class["value"], 2_000_001_000);
    let service = cluster
        .get("/api/v1/namespaces/default/services/kubernetes")
        .await
        .json();
    assert_eq!(service["spec"]["clusterIP"], "10.96.0.1");
    let endpoints = cluster
        .get("/api/v1/namespaces/default/endpoints/kubernetes")
        .await
        .json();
    assert_eq!(endpoints["subsets"][0]["addresses"][0]["ip"], "192.0.2.1");
}

#[tokio::test]
async fn an_object_is_created_once_and_changed_with_care() {
    let cluster = Cluster::new().await;
    let created = cluster.post(CONFIG_MAPS, &config_map("a")).await;
    assert_eq!(created.code, 201);
    let object = created.json();
    assert_eq!(object["metadata"]["namespace"], "default");
    assert!(object["metadata"]["uid"].is_string() && object["metadata"]["creationTimestamp"].is_string());

    let twice = cluster.post(CONFIG_MAPS, &config_map("a")).await;
    assert_eq!(
        (twice.code, twice.message().as_str()),
        (409, "configmaps \"a\" already exists")
    );

    let path = format!("{CONFIG_MAPS}/a");
    assert_eq!(
        cluster.get(&path).await.bytes,
        created.bytes,
        "what is read are the bytes that were answered"
    );

    let mut newer = object.clone();
    newer["data"]["x"] = json!("2");
    let updated = cluster.put(&path, &newer).await;
    assert_eq!(updated.code, 200);
    assert_ne!(
        updated.json()["metadata"]["resourceVersion"],
        object["metadata"]["resourceVersion"]
    );
    assert_eq!(updated.json()["metadata"]["uid"], object["metadata"]["uid"]);
    let stale = cluster.put(&path, &newer).await;
    assert_eq!((stale.code, stale.message().as_str()), (409, MODIFIED));

    let mut unconditional = config_map("a");
    unconditional["data"]["x"] = json!("3");
    assert_eq!(cluster.put(&path, &unconditional).await.json()["data"]["x"], "3");
    let same = cluster.put(&path, &unconditional).await.json();
    assert_eq!(
        same,
        cluster.get(&path).await.json(),
        "an update that changes nothing writes nothing"
    );

    let renamed = cluster.put(&path, &config_map("b")).await;
    assert_eq!(
        renamed.message(),
        "the name of the object (b) does not match the name on the URL (a)"
    );
    let other = json!({"metadata": {"name": "a", "uid": "another"}});
    assert_eq!(cluster.put(&path, &other).await.code, 409);

    let gone = cluster.delete(&path, &json!({})).await;
    assert_eq!((gone.code, gone.json()["status"].as_str()), (200, Some("Success")));
    assert_eq!(cluster.get(&path).await.message(), "configmaps \"a\" not found");
    assert_eq!(cluster.delete(&path, &json!({})).await.code, 404);
}

#[tokio::test]
async fn patches_of_every_kind_are_applied() {
    let cluster = Cluster::new().await;
    cluster.post(CONFIG_MAPS, &config_map("a")).await;
    let path = format!("{CONFIG_MAPS}/a");
    let merged = cluster
        .patch(&path, "merge-patch", &json!({"data": {"y": "2", "x": null}}))
        .await;
    assert_eq!(merged.json()["data"], json!({"y": "2"}));
    let strategic = json!({"metadata": {"labels": {"k": "v"}}});
    let merged = cluster.patch(&path, "strategic-merge-patch", &strategic).await;
    assert_eq!(merged.json()["metadata"]["labels"], json!({"k": "v"}));
    let patch = json!([{"op": "test", "path": "/data/y", "value": "2"}, {"op": "remove", "path": "/data/y"}]);
    let emptied = cluster.patch(&path, "json-patch", &patch).await.json();
    assert_eq!(emptied.get("data"), None);
    assert_eq!(cluster.patch(&path, "json-patch", &patch).await.code, 422);
    let stale = json!({"metadata": {"resourceVersion": "1"}, "data": {"z": "1"}});
    assert_eq!(cluster.patch(&path, "merge-patch", &stale).await.message(), MODIFIED);
    let refused = cluster.patch(&path, "apply-patch", &json!({})).await;
    assert_eq!(refused.code, 415);
    assert!(
        refused.message().contains("application/strategic-merge-patch+json"),
        "{}",
        refused.message()
    );
}

#[tokio::test]
async fn nothing_is_stored_in_a_dry_run() {
    let cluster = Cluster::new().await;
    let dry = cluster
        .post(&format!("{CONFIG_MAPS}?dryRun=All"), &config_map("a"))
        .await;
    assert_eq!(dry.code, 201);
    assert_eq!(cluster.get(&format!("{CONFIG_MAPS}/a")).await.code, 404);
    cluster.post(CONFIG_MAPS, &config_map("a")).await;
    let path = format!("{CONFIG_MAPS}/a");
    let before = cluster.get(&path).await.json();
    assert_eq!(
        cluster
            .post(&format!("{CONFIG_MAPS}?dryRun=All"), &config_map("a"))
            .await
            .code,
        409
    );
    let dry = cluster
        .patch(
            &format!("{path}?dryRun=All"),
            "merge-patch",
            &json!({"data": {"x": "9"}}),
        )
        .await;
    assert_eq!(dry.json()["data"]["x"], "9");
    assert_eq!(cluster.delete(&path, &json!({"dryRun": ["All"]})).await.code, 200);
    assert_eq!(cluster.get(&path).await.json(), before);
    assert_eq!(
        cluster
            .post(&format!("{CONFIG_MAPS}?dryRun=Some"), &config_map("b"))
            .await
            .code,
        422
    );
}

#[tokio::test]
async fn names_are_generated_until_one_is_free() {
    let cluster = Cluster::new().await;
    let mut object = config_map("");
    object["metadata"] = json!({"generateName": "a-"});
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let created = cluster.post(CONFIG_MAPS, &object).await;
        assert_eq!(created.code, 201, "{}", created.message());
        names.insert(created.json()["metadata"]["name"].as_str().unwrap().to_owned());
    }
    assert_eq!(names.len(), 20);
    assert!(
        names.iter().all(|name| name.len() == 7 && name.starts_with("a-")),
        "{names:?}"
    );
}

#[tokio::test]
async fn namespaces_hold_their_content_to_the_end() {
    let cluster = Cluster::new().await;
    let missing = cluster
        .post("/api/v1/namespaces/nope/configmaps", &config_map("a"))
        .await;
    assert_eq!(
        (missing.code, missing.message().as_str()),
        (404, "namespaces \"nope\" not found")
    );
    let namespace = json!({"metadata": {"name": "a"}});
    cluster.post("/api/v1/namespaces", &namespace).await;
    let deleted = cluster.delete("/api/v1/namespaces/a", &json!({})).await.json();
    assert_eq!(deleted["status"]["phase"], "Terminating");
    let refused = cluster.post("/api/v1/namespaces/a/configmaps", &config_map("a")).await;
    assert_eq!(refused.code, 403);
    assert_eq!(
        refused.message(),
        "configmaps \"a\" is forbidden: unable to create new content in namespace a because it is being terminated"
    );
    let mut last = cluster.get("/api/v1/namespaces/a").await.json();
    last["spec"]["finalizers"] = json!([]);
    assert_eq!(cluster.put("/api/v1/namespaces/a/finalize", &last).await.code, 200);
    assert_eq!(cluster.get("/api/v1/namespaces/a").await.code, 404);
    let kept = cluster.delete("/api/v1/namespaces/default", &json!({})).await;
    assert_eq!(
        kept.message(),
        "namespaces \"default\" is forbidden: this namespace may not be deleted"
    );
    let class = "/apis/scheduling.k8s.io/v1/priorityclasses/system-node-critical";
    let kept = cluster.delete(class, &json!({})).await;
    assert_eq!(
        (kept.code, kept.message().as_str()),
        (
            403,
            "priorityclasses.scheduling.k8s.io \"system-node-critical\" is forbidden: this is a system priority class and cannot be deleted"
        )
    );
}

#[tokio::test]
async fn finalizers_and_preconditions_hold_a_deletion() {
    let cluster = Cluster::new().await;
    let mut held = config_map("a");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    let created = cluster.post(CONFIG_MAPS, &held).await.json();
    let path = format!("{CONFIG_MAPS}/a");
    let wrong = cluster.delete(&path, &json!({"preconditions": {"uid": "other"}})).await;
    assert_eq!(wrong.code, 409);
    assert!(
        wrong
            .message()
            .contains("Precondition failed: UID in precondition: other, UID in object meta: ")
    );
    let right = json!({"preconditions": {"uid": created["metadata"]["uid"]}});
    let marked = cluster.delete(&path, &right).await.json();
    assert!(marked["metadata"]["deletionTimestamp"].is_string(), "{marked}");
    assert_eq!(cluster.get(&path).await.code, 200);
    let freed = cluster
        .patch(&path, "merge-patch", &json!({"metadata": {"finalizers": null}}))
        .await;
    assert_eq!(freed.code, 200);
    assert_eq!(cluster.get(&path).await.code, 404);
}

#[tokio::test]
async fn pages_show_one_revision() {
    let cluster = Cluster::new().await;
    for index in 0..7 {
        let mut object = config_map(&format!("m{index}"));
        object["metadata"]["labels"] = json!({"odd": (index % 2 == 1).to_string()});
        cluster.post(CONFIG_MAPS, &object).await;
    }
    let first = cluster.get(&format!("{CONFIG_MAPS}?limit=3")).await.json();
    assert_eq!(first["kind"], "ConfigMapList");
    assert_eq!(first["metadata"]["remainingItemCount"], 4);
    assert!(
        first["items"][0].get("kind").is_none(),
        "a list says once what its items are"
    );
    // What is written meanwhile is not in the later pages.
    cluster.post(CONFIG_MAPS, &config_map("m9")).await;
    cluster.delete(&format!("{CONFIG_MAPS}/m5"), &json!({})).await;
    let mut names: Vec<String> = Vec::new();
    let mut page = first.clone();
    loop {
        let items = page["items"].as_array().unwrap();
        names.extend(
            items
                .iter()
                .map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["metadata"]["continue"].as_str().map(String::from) else {
            break;
        };
        page = cluster
            .get(&format!("{CONFIG_MAPS}?limit=3&continue={next}"))
            .await
            .json();
        assert_eq!(
            page["metadata"]["resourceVersion"],
            first["metadata"]["resourceVersion"]
        );
    }
    assert_eq!(names, ["m0", "m1", "m2", "m3", "m4", "m5", "m6"]);

    for (query, expected) in [
        ("labelSelector=odd%3Dtrue", &["m1", "m3"][..]),
        ("labelSelector=odd%3Dtrue&limit=1", &["m1"]),
        ("labelSelector=odd,odd%20notin%20(true)", &["m0", "m2", "m4", "m6"]),
        ("fieldSelector=metadata.name%3Dm2", &["m2"]),
        (
            "fieldSelector=metadata.name!%3Dm2,metadata.namespace%3Ddefault&labelSelector=odd%3Dfalse",
            &["m0", "m4", "m6"],
        ),
        ("fieldSelector=metadata.name%3Dnone", &[]),
    ] {
        let list = cluster.get(&format!("{CONFIG_MAPS}?{query}")).await.json();
        let found: Vec<&str> = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["metadata"]["name"].as_str().unwrap())
            .collect();
        assert_eq!(found, expected, "{query}");
    }
    let unknown = cluster.get(&format!("{CONFIG_MAPS}?fieldSelector=spec.x%3D1")).await;
    assert_eq!(unknown.code, 400);
    let all = cluster
        .delete(&format!("{CONFIG_MAPS}?labelSelector=odd%3Dtrue"), &json!({}))
        .await
        .json();
    assert_eq!(all["items"].as_array().unwrap().len(), 2);
    assert_eq!(cluster.get(&format!("{CONFIG_MAPS}/m1")).await.code, 404);
    assert_eq!(cluster.get(&format!("{CONFIG_MAPS}/m0")).await.code, 200);
}

#[tokio::test]
async fn revisions_that_are_gone_or_yet_to_come_are_refused() {
    let cluster = Cluster::new().await;
    for name in ["a", "b", "c"] {
        cluster.post(CONFIG_MAPS, &config_map(name)).await;
    }
    let page = cluster.get(&format!("{CONFIG_MAPS}?limit=1")).await.json();
    let (revision, next) = (
        page["metadata"]["resourceVersion"].as_str().unwrap(),
        &page["metadata"]["continue"],
    );
    let exact = format!("{CONFIG_MAPS}?resourceVersion={revision}&resourceVersionMatch=Exact");
    cluster.delete(&format!("{CONFIG_MAPS}/a"), &json!({})).await;
    assert_eq!(cluster.get(&exact).await.json()["items"].as_array().unwrap().len(), 3);
    let newest = store::Store::revision(&*cluster.store).await.unwrap();
    store::Store::compact(&*cluster.store, newest).await.unwrap();
    let gone = cluster.get(&exact).await;
    assert_eq!((gone.code, gone.json()["reason"].as_str()), (410, Some("Expired")));
    let stale = cluster
        .get(&format!("{CONFIG_MAPS}?limit=1&continue={}", next.as_str().unwrap()))
        .await;
    assert_eq!(stale.code, 410);
    assert!(
        stale
            .message()
            .starts_with("The provided continue parameter is too old")
    );
    let going_on = stale.json()["metadata"]["continue"].as_str().unwrap().to_owned();
    let rest = cluster.get(&format!("{CONFIG_MAPS}?continue={going_on}")).await.json();
    assert_eq!(rest["items"].as_array().unwrap().len(), 2);
    let early = cluster.get(&format!("{CONFIG_MAPS}?resourceVersion=999999")).await;
    assert_eq!(early.code, 504);
    assert_eq!(
        early.json()["details"]["causes"][0]["reason"],
        "ResourceVersionTooLarge"
    );
}

#[tokio::test]
async fn services_have_addresses_of_their_own() {
    let cluster = Cluster::new().await;
    let services = "/api/v1/namespaces/default/services";
    let service = |name: &str, spec: serde_json::Value| json!({"metadata": {"name": name}, "spec": spec});
    let ports = json!([{"port": 80}]);
    let mut seen = std::collections::BTreeSet::from(["10.96.0.1".to_owned()]);
    // A /28 has 14 addresses, of which the cluster's own Service has one.
    for index in 0..13 {
        let created = cluster
            .post(services, &service(&format!("s{index}"), json!({"ports": ports})))
            .await;
        assert_eq!(created.code, 201, "{}", created.message());
        let address = created.json()["spec"]["clusterIP"].as_str().unwrap().to_owned();
        assert!(seen.insert(address.clone()), "{address} twice");
    }
    let full = cluster.post(services, &service("more", json!({"ports": ports}))).await;
    assert!(full.message().contains("range is full"), "{}", full.message());
    let freed = cluster.delete(&format!("{services}/s3"), &json!({})).await.json();
    let address = freed["spec"]["clusterIP"].as_str().unwrap();
    let taken = cluster
        .post(
            services,
            &service("more", json!({"ports": ports, "clusterIP": "10.96.0.1"})),
        )
        .await;
    assert_eq!(taken.code, 422);
    assert!(
        taken
            .message()
            .contains("failed to allocate IP 10.96.0.1: provided IP is already allocated")
    );
    let outside = cluster
        .post(
            services,
            &service("more", json!({"ports": ports, "clusterIP": "10.97.0.1"})),
        )
        .await;
    assert!(
        outside
            .message()
            .contains("failed to allocate IP 10.97.0.1: the provided network does not match the current range"),
        "{}",
        outside.message()
    );
    let again = cluster
        .post(
            services,
            &service("more", json!({"ports": ports, "clusterIP": address})),
        )
        .await;
    assert_eq!(again.code, 201);
    let headless = cluster
        .post(services, &service("h", json!({"ports": ports, "clusterIP": "None"})))
        .await;
    assert_eq!(headless.json()["spec"]["clusterIPs"], json!(["None"]));
    // An address is kept over updates, and a change of type frees it.
    let path = format!("{services}/more");
    let patched = cluster
        .patch(&path, "merge-patch", &json!({"metadata": {"labels": {"a": "b"}}}))
        .await
        .json();
    assert_eq!(patched["spec"]["clusterIP"], address);
    let node_port = cluster
        .patch(&path, "merge-patch", &json!({"spec": {"type": "NodePort"}}))
        .await
        .json();
    let port = node_port["spec"]["ports"][0]["nodePort"].as_i64().unwrap();
    assert!((30000..=32767).contains(&port));
}

#[tokio::test]
async fn an_update_makes_what_is_not_there_but_not_what_is_no_more() {
    let cluster = Cluster::new().await;
    let path = "/apis/coordination.k8s.io/v1/namespaces/default/leases/beat";
    let lease = json!({"metadata": {"name": "beat", "resourceVersion": "5"}, "spec": {"holderIdentity": "me"}});
    let made = cluster.put(path, &lease).await;
    assert_eq!(made.code, 201, "{}", made.message());
    let held = made.json();
    assert_eq!(cluster.delete(path, &json!({})).await.code, 200);
    let refused = cluster.put(path, &held).await;
    assert_eq!(
        (refused.code, refused.message()),
        (
            409,
            format!(
                "Operation cannot be fulfilled on leases.coordination.k8s.io \"beat\": Precondition failed: UID in precondition: {}, UID in object meta: ",
                held["metadata"]["uid"].as_str().unwrap()
            )
        )
    );
}
