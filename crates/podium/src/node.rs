//! `podium ps` and `podium image`: a node's containers and images.

use std::path::Path;

use anyhow::{Context, Result};
use cri::ImageService;
use cri::podium::ImportArchiveRequest;
use cri::v1::{ImageSpec, ListImagesRequest, PullImageRequest, RemoveImageRequest};

use crate::flags::ImageAction;

/// The CRI socket's name in the run directory.
pub const SOCKET: &str = "podium.sock";

async fn connect(run_dir: &Path) -> Result<cri::grpc::Client> {
    let socket = run_dir.join(SOCKET);
    let endpoint = format!("unix://{}", socket.display());
    cri::grpc::connect(&endpoint).await.with_context(|| {
        format!(
            "no node answers on {}; start one with podium server, or say --run-dir",
            socket.display()
        )
    })
}

fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(future)
}

/// Lists the node's containers, the pause containers among them. Needs no server: the node's records tell.
pub fn ps(run_dir: &Path, all: bool) -> Result<()> {
    let listed = runtime::list(run_dir).with_context(|| format!("the containers of {}", run_dir.display()))?;
    let shown = listed
        .into_iter()
        .filter(|container| all || container.state == "Running");
    let rows: Vec<_> = shown
        .map(|container| {
            let image = if container.image.is_empty() {
                "pause".into()
            } else {
                container.image
            };
            vec![short(&container.id), image, container.name, container.state.into()]
        })
        .collect();
    print_table(&["CONTAINER ID", "IMAGE", "NAME", "STATE"], &rows);
    Ok(())
}

/// `podium image …`
pub fn image(run_dir: &Path, action: &ImageAction) -> Result<()> {
    let spec = |reference: &str| {
        Some(ImageSpec {
            image: reference.into(),
            ..Default::default()
        })
    };
    block_on(async {
        match action {
            ImageAction::Ls => {
                let images = connect(run_dir)
                    .await?
                    .list_images(ListImagesRequest::default())
                    .await?
                    .images;
                let rows: Vec<_> = images
                    .iter()
                    .flat_map(|image| {
                        let names = if image.repo_tags.is_empty() {
                            &image.repo_digests
                        } else {
                            &image.repo_tags
                        };
                        names.iter().map(|name| {
                            let size = format!("{:.1} MiB", image.size as f64 / f64::from(1 << 20));
                            vec![name.clone(), short(image.id.trim_start_matches("sha256:")), size]
                        })
                    })
                    .collect();
                print_table(&["IMAGE", "ID", "SIZE"], &rows);
            }
            ImageAction::Pull { reference } => {
                let request = PullImageRequest {
                    image: spec(reference),
                    ..Default::default()
                };
                println!("{}", connect(run_dir).await?.pull_image(request).await?.image_ref);
            }
            ImageAction::Import { files } => {
                let client = connect(run_dir).await?;
                for file in files {
                    // The node opens the file itself, from where it was started.
                    let path = std::path::absolute(file)?;
                    let request = ImportArchiveRequest {
                        path: path.to_string_lossy().into_owned(),
                    };
                    let answer = client
                        .import_archive(request)
                        .await
                        .with_context(|| format!("import {}", file.display()))?;
                    for image in answer.images {
                        println!(
                            "{} {}",
                            short(image.id.trim_start_matches("sha256:")),
                            image.names.join(" ")
                        );
                    }
                }
            }
            ImageAction::Rm { reference } => {
                let request = RemoveImageRequest { image: spec(reference) };
                connect(run_dir).await?.remove_image(request).await?;
            }
        }
        Ok(())
    })
}

/// The first digits of an id, as people use them.
fn short(id: &str) -> String {
    id.chars().take(13).collect()
}

fn print_table(header: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].len())
            .chain([header[column].len()])
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<_> = (0..header.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<_> = cells
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        println!("{}", padded.join("   ").trim_end());
    };
    line(&mut header.iter().copied());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
}
