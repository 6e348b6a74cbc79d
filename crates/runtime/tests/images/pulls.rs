//! Pulls from a real registry, and each way that one fails.

use std::fs;

use cri::v1::{AuthConfig, ImageSpec, PullImageRequest};
use cri::{Code, ImageService};
use futures::future::join_all;
use serde_json::json;

use crate::compose::{Image, Layer, digest};
use crate::registry::{HOST, Registry, isolated};
use crate::{assert_empty, entries, open};

fn hello() -> Image {
    Image::new(vec![
        Layer::new(&[("etc/base", b"base"), ("hello", b"old")]),
        Layer::zstd(&[("hello", b"new")]),
        Layer::plain(&[("etc/.wh.base", b"")]),
    ])
}

fn request(image: &str, auth: Option<AuthConfig>) -> PullImageRequest {
    PullImageRequest {
        image: Some(ImageSpec {
            image: image.into(),
            ..Default::default()
        }),
        auth,
        sandbox_config: None,
    }
}

fn password(password: &str) -> Option<AuthConfig> {
    Some(AuthConfig {
        username: "ada".into(),
        password: password.into(),
        ..Default::default()
    })
}

#[test]
fn an_image_with_layers_of_every_compression() {
    isolated(async || {
        let (registry, data) = (Registry::start(false), tempfile::tempdir().unwrap());
        let image = hello();
        let manifest = registry.push("hello:v1", &image).await;
        let images = open(data.path());
        let name = format!("{HOST}/hello:v1");
        let by_digest = format!("{HOST}/hello@{manifest}");

        let answer = images.pull_image(request(&name, None)).await.unwrap();
        assert_eq!(answer.image_ref, image.id());
        let pulled = images.resolve(&name).unwrap().unwrap();
        assert_eq!(pulled.repo_tags().collect::<Vec<_>>(), [&name]);
        assert_eq!(pulled.repo_digests().collect::<Vec<_>>(), [&by_digest]);
        let process = pulled.process().unwrap();
        assert_eq!(process.cmd().as_deref().unwrap(), ["/hello"]);
        let layers = images.layers(&pulled.id).unwrap();
        assert_eq!(fs::read(layers[0].join("etc/base")).unwrap(), b"base");
        assert_eq!(fs::read(layers[1].join("hello")).unwrap(), b"new");
        let whiteout = fs::symlink_metadata(layers[2].join("etc/base")).unwrap();
        assert!(std::os::unix::fs::FileTypeExt::is_char_device(&whiteout.file_type()));

        for same in [
            &by_digest,
            &image.id(),
            &image.id()[7..].to_owned(),
            &image.id()[7..20].to_owned(),
        ] {
            assert_eq!(images.resolve(same).unwrap().unwrap().id, image.id(), "{same}");
        }
        assert!(images.resolve("no/such:image").unwrap().is_none());
        let listed = images.list_images(Default::default()).await.unwrap().images;
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].uid, Some(cri::v1::Int64Value { value: 7 }));
        assert!(!listed[0].pinned);
        let status = cri::v1::ImageStatusRequest {
            image: Some(ImageSpec {
                image: name.clone(),
                ..Default::default()
            }),
            verbose: true,
        };
        let status = images.image_status(status).await.unwrap();
        assert!(status.info["info"].contains("imageSpec"));

        // A second pull asks only what the tag is.
        images.pull_image(request(&name, None)).await.unwrap();
        assert_eq!(registry.requests(&["GET /v2/hello/blobs/"]), 4);
        assert_eq!(entries(data.path(), "tmp"), Vec::<String>::new());
    });
}

#[test]
fn pulls_at_once_share_the_work() {
    isolated(async || {
        let (registry, data) = (Registry::start(false), tempfile::tempdir().unwrap());
        let base = || Layer::new(&[("base", &[7; 300_000])]);
        let one = Image::new(vec![base(), Layer::new(&[("one", b"1")])]);
        let two = Image::new(vec![base(), Layer::new(&[("two", b"2")])]);
        registry.push("one:v1", &one).await;
        registry.push("two:v1", &two).await;
        let images = open(data.path());
        let names = [format!("{HOST}/one:v1"), format!("{HOST}/two:v1")];
        let pulls = (0..8).map(|n| images.pull(&names[n % 2], None));
        for pulled in join_all(pulls).await {
            pulled.unwrap();
        }
        assert_eq!(entries(data.path(), "layers").len(), 3);
        let blob = digest(&base().blob);
        let fetched = registry.requests(&["GET", &blob]);
        assert_eq!(fetched, 1, "the common layer came once");
    });
}

#[test]
fn what_is_not_there() {
    isolated(async || {
        let (registry, data) = (Registry::start(false), tempfile::tempdir().unwrap());
        registry.push("hello:v1", &hello()).await;
        let images = open(data.path());
        for name in ["hello:v2", "nosuch:latest"] {
            let name = format!("{HOST}/{name}");
            let error = images.pull_image(request(&name, None)).await.unwrap_err();
            assert_eq!(error.code, Code::NotFound);
            assert_eq!(
                error.message,
                format!(
                    "failed to pull and unpack image {name:?}: failed to resolve reference {name:?}: {name}: not found"
                )
            );
        }
        let error = images.pull_image(request("Bad", None)).await.unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument);
        drop(registry);
        let name = format!("{HOST}/hello:v1");
        let error = images.pull_image(request(&name, None)).await.unwrap_err();
        assert!(
            error.message.ends_with(&format!(
                "failed to do request: Get \"http://{HOST}/v2/hello/manifests/v1\": connection refused"
            )),
            "{error}"
        );
        assert_empty(data.path());
    });
}

#[test]
fn a_registry_with_a_password() {
    isolated(async || {
        let (registry, data) = (Registry::start(true), tempfile::tempdir().unwrap());
        let image = hello();
        registry.push("private:v1", &image).await;
        let images = open(data.path());
        let name = format!("{HOST}/private:v1");
        for (auth, reason) in [
            (None, "authorization failed: no basic auth credentials"),
            (password("wrong"), "401 Unauthorized"),
        ] {
            let error = images.pull_image(request(&name, auth)).await.unwrap_err();
            let start = format!(
                "failed to pull and unpack image {name:?}: failed to resolve reference {name:?}: \
                 pull access denied, repository does not exist or may require authorization: "
            );
            assert!(
                error.message.starts_with(&start) && error.message.ends_with(reason),
                "{error}"
            );
        }
        let answer = images.pull_image(request(&name, password("secret"))).await;
        assert_eq!(answer.unwrap().image_ref, image.id());

        images.remove(&name).await.unwrap();
        let file = format!("configs: {{'{HOST}': {{auth: {{username: ada, password: secret}}}}}}");
        fs::write(data.path().join("registries.yaml"), file).unwrap();
        images.pull_image(request(&name, None)).await.unwrap();
    });
}

#[test]
fn a_mirror_is_asked_first() {
    isolated(async || {
        let (registry, data) = (Registry::start(false), tempfile::tempdir().unwrap());
        registry.push("library/hello:v1", &hello()).await;
        let file = format!("mirrors: {{docker.io: {{endpoint: ['http://{HOST}']}}}}");
        fs::write(data.path().join("registries.yaml"), file).unwrap();
        let images = open(data.path());
        let image = images.pull("hello:v1", None).await.unwrap();
        assert!(image.names.contains("docker.io/library/hello:v1"));
        fs::write(data.path().join("registries.yaml"), "mirror: {}").unwrap();
        let error = images.pull("hello:v2", None).await.unwrap_err().to_string();
        assert!(error.contains("registries.yaml: unknown field `mirror`"), "{error}");
    });
}

#[test]
fn tampered_layers() {
    isolated(async || {
        let (registry, data) = (Registry::start(false), tempfile::tempdir().unwrap());
        let image = hello();
        registry.push("hello:v1", &image).await;
        let images = open(data.path());
        let name = format!("{HOST}/hello:v1");
        let good = image.layers[0].blob.clone();
        let blob = registry.blob_file(&good);
        let expected = digest(&good);
        let other = Layer::new(&[("etc/base", b"evil")]).blob;
        for (content, reason) in [
            (
                [&good[..good.len() - 1], b"x"].concat(),
                format!("failed commit on ref \"layer-{expected}\": unexpected commit digest sha256:"),
            ),
            (
                good[..good.len() / 2].to_vec(),
                format!("failed commit on ref \"layer-{expected}\": unexpected commit size"),
            ),
            (
                [&good[..], b"more"].concat(),
                format!("failed commit on ref \"layer-{expected}\": unexpected commit size"),
            ),
            (
                other,
                format!("failed commit on ref \"layer-{expected}\": unexpected commit"),
            ),
        ] {
            fs::write(&blob, content).unwrap();
            let error = images.pull_image(request(&name, None)).await.unwrap_err();
            assert_eq!(error.code, Code::FailedPrecondition, "{error}");
            assert!(error.message.contains(&reason), "{error}");
            assert!(images.list().is_empty());
        }
        drop(images);
        open(data.path());
        assert_empty(data.path());
    });
}

#[test]
fn a_configuration_that_lies_about_its_layers() {
    isolated(async || {
        let (registry, data) = (Registry::start(false), tempfile::tempdir().unwrap());
        let mut layer = Layer::new(&[("a", b"a")]);
        layer.diff_id = digest(b"something else");
        let image = Image::new(vec![layer]);
        registry.push("liar:v1", &image).await;
        let images = open(data.path());
        let error = images.pull(&format!("{HOST}/liar:v1"), None).await.unwrap_err();
        assert!(
            error.to_string().contains("wrong diff id calculated on extraction"),
            "{error}"
        );
        assert_empty(data.path());
    });
}

#[test]
fn an_index_chooses_this_machine() {
    isolated(async || {
        let (registry, data) = (Registry::start(false), tempfile::tempdir().unwrap());
        let image = hello();
        let manifest = registry.push("multi:this", &image).await;
        let platform = |arch: &str, digest: &str| {
            json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest,
                   "size": image.manifest.len(), "platform": {"os": "linux", "architecture": arch}})
        };
        let this = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
        let media_type = "application/vnd.oci.image.index.v1+json";
        let index = |arch: &str| {
            json!({"schemaVersion": 2, "mediaType": media_type, "manifests": [platform(arch, &manifest)]}).to_string()
        };
        let whole = registry
            .push_manifest("multi:v1", index(this).as_bytes(), media_type)
            .await;
        registry
            .push_manifest("multi:foreign", index("s390x").as_bytes(), media_type)
            .await;
        let images = open(data.path());
        let pulled = images.pull(&format!("{HOST}/multi:v1"), None).await.unwrap();
        assert_eq!(pulled.id, image.id());
        assert!(pulled.names.contains(&format!("{HOST}/multi@{whole}")));
        let error = images
            .pull_image(request(&format!("{HOST}/multi:foreign"), None))
            .await
            .unwrap_err();
        assert_eq!(error.code, Code::NotFound);
        assert!(
            error.message.ends_with("no match for platform in manifest: not found"),
            "{error}"
        );
    });
}
