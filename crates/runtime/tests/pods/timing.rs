//! Not a test of correctness: prints how long the steps of a pod take.

use std::time::Instant;

use crate::support::Node;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn steps() {
    let node = Node::new().await;
    for round in 0..8 {
        let pod = node.sandbox_config(&format!("p{round}"));
        let mut marks = vec![("", Instant::now())];
        let mut mark = |name| marks.push((name, Instant::now()));
        let sandbox = node.run(&pod).await;
        mark("sandbox");
        let one = node
            .create(&sandbox, &pod, node.container_config("a", &["sleep", "1000"]))
            .await;
        mark("create");
        node.start(&one).await.unwrap();
        mark("start");
        let mut config = node.container_config("b", &["sleep", "1000"]);
        config
            .linux
            .as_mut()
            .unwrap()
            .security_context
            .as_mut()
            .unwrap()
            .seccomp = None;
        let two = node.create(&sandbox, &pod, config).await;
        mark("create");
        node.start(&two).await.unwrap();
        mark("start unconfined");
        node.exec(&one, &["true"]).await.unwrap();
        mark("exec");
        if round == 7 {
            let shim = node.shim_pid(&sandbox);
            let smaps = std::fs::read_to_string(format!("/proc/{shim}/smaps_rollup")).unwrap();
            eprintln!("{smaps}");
        }
        node.stop(&one, 0).await;
        mark("stop");
        node.remove_sandbox(&sandbox).await;
        mark("remove");
        let steps: Vec<_> = marks
            .windows(2)
            .map(|pair| format!("{} {:.1}", pair[1].0, (pair[1].1 - pair[0].1).as_secs_f64() * 1000.0))
            .collect();
        eprintln!("{}", steps.join(", "));
    }
    node.assert_clean();
}
