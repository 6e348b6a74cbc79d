//! Images as the kubelet asks for them.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use cri::ImageService;
use cri::podium::{ImportArchiveRequest, ImportArchiveResponse, ImportedImage};
use cri::v1::{
    FilesystemIdentifier, FilesystemUsage, ImageFsInfoRequest, ImageFsInfoResponse, ImageSpec, ImageStatusRequest,
    ImageStatusResponse, Int64Value, ListImagesRequest, ListImagesResponse, PullImageRequest, PullImageResponse,
    RemoveImageRequest, RemoveImageResponse, UInt64Value,
};

use super::index::Image;
use super::{Error, Images};

#[async_trait]
impl ImageService for Images {
    async fn list_images(&self, request: ListImagesRequest) -> cri::Result<ListImagesResponse> {
        let filter = request
            .filter
            .and_then(|filter| filter.image)
            .map(|spec| spec.image)
            .filter(|name| !name.is_empty());
        let images = match filter {
            None => self.list(),
            Some(name) => self.resolve(&name)?.into_iter().collect(),
        };
        Ok(ListImagesResponse {
            images: images.iter().map(|image| message(image)).collect(),
        })
    }

    async fn image_status(&self, request: ImageStatusRequest) -> cri::Result<ImageStatusResponse> {
        let Some(image) = self.resolve_soon(&named(request.image)?).await? else {
            return Ok(ImageStatusResponse::default());
        };
        let mut info = HashMap::new();
        if request.verbose {
            let text = serde_json::json!({
                "chainID": super::chain_id(&image),
                "imageSpec": &*image.config,
            });
            info.insert("info".to_owned(), text.to_string());
        }
        Ok(ImageStatusResponse {
            image: Some(message(&image)),
            info,
        })
    }

    async fn pull_image(&self, request: PullImageRequest) -> cri::Result<PullImageResponse> {
        let image = self.pull(&named(request.image)?, request.auth.as_ref()).await?;
        Ok(PullImageResponse {
            image_ref: image.id.clone(),
        })
    }

    async fn remove_image(&self, request: RemoveImageRequest) -> cri::Result<RemoveImageResponse> {
        match self.remove(&named(request.image)?).await {
            Ok(()) | Err(Error::NotFound(_)) => Ok(RemoveImageResponse {}),
            Err(error) => Err(error.into()),
        }
    }

    async fn image_fs_info(&self, _: ImageFsInfoRequest) -> cri::Result<ImageFsInfoResponse> {
        let usage = self.usage();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let images = FilesystemUsage {
            timestamp: now.as_nanos().try_into().unwrap_or(i64::MAX),
            fs_id: Some(FilesystemIdentifier {
                mountpoint: self.store_dir().display().to_string(),
            }),
            used_bytes: Some(UInt64Value { value: usage.bytes }),
            inodes_used: Some(UInt64Value { value: usage.inodes }),
        };
        Ok(ImageFsInfoResponse {
            image_filesystems: vec![images.clone()],
            container_filesystems: vec![images],
        })
    }

    async fn import_archive(&self, request: ImportArchiveRequest) -> cri::Result<ImportArchiveResponse> {
        let images = self.import(request.path.as_ref()).await?;
        Ok(ImportArchiveResponse {
            images: images
                .iter()
                .map(|image| ImportedImage {
                    id: image.id.clone(),
                    names: image.names.iter().cloned().collect(),
                })
                .collect(),
        })
    }
}

fn named(spec: Option<ImageSpec>) -> cri::Result<String> {
    match spec {
        Some(spec) if !spec.image.is_empty() => Ok(spec.image),
        _ => Err(cri::Error::invalid_argument("image.image: Required value")),
    }
}

fn message(image: &Image) -> cri::v1::Image {
    let (uid, username) = user(image);
    cri::v1::Image {
        id: image.id.clone(),
        repo_tags: image.repo_tags().cloned().collect(),
        repo_digests: image.repo_digests().cloned().collect(),
        size: image.size,
        uid,
        username,
        spec: None,
        pinned: image.pinned,
    }
}

/// Who the image's process is: a number or a name, the group aside.
fn user(image: &Image) -> (Option<Int64Value>, String) {
    let user = image
        .process()
        .and_then(|process| process.user().as_deref())
        .and_then(|user| user.split(':').next())
        .unwrap_or_default();
    match user.parse() {
        Ok(value) => (Some(Int64Value { value }), String::new()),
        Err(_) => (None, user.to_owned()),
    }
}
