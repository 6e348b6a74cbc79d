//! Taking all of it away, without any file: what Podium made shows that it did.

use crate::{
    Error, Result,
    netlink::{self, Doing},
    rules, services,
};

/// Removes every link, address, route and rule that Podium made in this network namespace. It goes on past what
/// fails and tells all of it.
///
/// Forwarding stays on: something else may have come to need it.
pub async fn teardown() -> Result<()> {
    let node = netlink::connect()?;
    let mut errors = Vec::new();
    match rules::apply("removing the rules", rules::none()).await {
        // Without nft there can be no rules of ours.
        Err(Error::NoNft(_)) | Ok(()) => {}
        Err(error) => errors.push(error),
    }
    errors.extend(services::teardown().err());
    errors.extend(netlink::delete_own_addresses(&node).await.err());
    match netlink::links(&node).await {
        Ok(links) => {
            for link in links.iter().filter(|link| link.is_ours()) {
                errors.extend(netlink::delete_link(&node, &link.name).await.err());
            }
        }
        Err(error) => errors.push(error),
    }
    match netlink::routes(&node).await {
        Ok(routes) => {
            for route in routes.into_iter().filter(netlink::is_our_route) {
                let action = format!("deleting the route to {}", netlink::destination(&route));
                let deleted = node.route().del(route).execute().await.doing(|| action);
                errors.extend(deleted.err().filter(|error| !netlink::is_absent(error)));
            }
        }
        Err(error) => errors.push(error),
    }
    Error::all(errors)
}
