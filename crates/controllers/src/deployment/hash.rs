//! The hash of a template, by which a Deployment's ReplicaSets and their pods are told apart.

use k8s_openapi::api::core::v1::PodTemplateSpec;

/// The letters of the hash: those of generated names, as the hash ends a name too.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// FNV-1a, 32 bits.
fn fnv(bytes: impl IntoIterator<Item = u8>) -> u32 {
    bytes.into_iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

/// The hash of a template, another one for each count of collisions.
pub fn of(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    // Maps are ordered by their keys, so that the text is one and the same for equal templates.
    let text = serde_json::to_vec(template).unwrap_or_default();
    let collisions = collisions.map(i32::to_le_bytes);
    let hash = fnv(text.into_iter().chain(collisions.into_iter().flatten()));
    hash.to_string()
        .bytes()
        .map(|byte| char::from(LETTERS[usize::from(byte) % LETTERS.len()]))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use serde_json::json;

    use super::*;

    #[test]
    fn the_function_is_fnv_1a() {
        assert_eq!(fnv([]), 0x811c_9dc5);
        assert_eq!(fnv(*b"a"), 0xe40c_292c);
        assert_eq!(fnv(*b"foobar"), 0xbf9c_f968);
    }

    #[test]
    fn equal_templates_have_equal_hashes_from_one_release_to_the_next() {
        let template = |image: &str| -> PodTemplateSpec {
            serde_json::from_value(json!({
                "metadata": {"labels": {"b": "2", "a": "1"}},
                "spec": {"containers": [{"name": "c", "image": image}]},
            }))
            .unwrap()
        };
        assert_eq!(of(&template("i:1"), None), HASH);
        assert_ne!(of(&template("i:2"), None), HASH);
        assert_ne!(of(&template("i:1"), Some(1)), HASH);
        let length = of(&template("i:1"), Some(1)).len();
        assert!((1..=10).contains(&length), "{length}");
    }

    const HASH: &str = "7c4fb9cddf";
}
