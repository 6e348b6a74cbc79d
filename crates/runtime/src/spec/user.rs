//! Who the container's process is: numbers from the pod, or names looked up in the image's account files.

use cri::v1::{LinuxContainerSecurityContext, SupplementalGroupsPolicy};

use super::SpecError;

/// The image's `/etc/passwd` and `/etc/group`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Accounts {
    pub passwd: String,
    pub group: String,
}

/// The numbers that the process runs under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups; the primary one comes first.
    pub groups: Vec<u32>,
}

struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl Accounts {
    fn users(&self) -> impl Iterator<Item = User<'_>> {
        self.passwd.lines().filter_map(|line| {
            let mut fields = line.trim().split(':');
            Some(User {
                name: fields.next()?,
                uid: fields.nth(1)?.parse().ok()?,
                gid: fields.next()?.parse().ok()?,
                home: fields.nth(1).unwrap_or_default(),
            })
        })
    }

    fn groups(&self) -> impl Iterator<Item = Group<'_>> {
        self.group.lines().filter_map(|line| {
            let mut fields = line.trim().split(':');
            Some(Group {
                name: fields.next()?,
                gid: fields.nth(1)?.parse().ok()?,
                members: fields.next().unwrap_or_default(),
            })
        })
    }

    /// A user's home directory; the root directory for a user without one.
    pub(super) fn home(&self, uid: u32) -> &str {
        self.users()
            .find(|user| user.uid == uid)
            .map(|user| user.home)
            .filter(|home| !home.is_empty())
            .unwrap_or("/")
    }
}

/// The pod's wishes come before the image's; `image` is its `user[:group]`.
pub(crate) fn identity(
    context: &LinuxContainerSecurityContext,
    image: &str,
    accounts: &Accounts,
) -> Result<Identity, SpecError> {
    if let (None, "", Some(group)) = (
        &context.run_as_user,
        context.run_as_username.as_str(),
        &context.run_as_group,
    ) {
        return Err(SpecError::GroupWithoutUser(group.value));
    }
    let (user, group) = match (&context.run_as_user, context.run_as_username.as_str()) {
        (Some(uid), _) => (uid.value.to_string(), None),
        (None, "") => match image.split_once(':') {
            Some((user, group)) => (user.to_owned(), Some(group.to_owned())),
            None => (image.to_owned(), None),
        },
        (None, name) => (name.to_owned(), None),
    };
    let group = match &context.run_as_group {
        Some(gid) => Some(gid.value.to_string()),
        None => group.filter(|group| !group.is_empty()),
    };

    let user = if user.is_empty() { "0" } else { &user };
    let account = accounts
        .users()
        .find(|account| account.name == user)
        .or_else(|| accounts.users().find(|account| user.parse() == Ok(account.uid)));
    let uid = match &account {
        Some(account) => account.uid,
        None => user.parse().map_err(|_| SpecError::UnknownUser(user.to_owned()))?,
    };
    let gid = match group {
        Some(group) => accounts
            .groups()
            .find(|account| account.name == group)
            .map(|account| account.gid)
            .or_else(|| group.parse().ok())
            .ok_or(SpecError::UnknownGroup(group))?,
        None => account.as_ref().map_or(0, |account| account.gid),
    };

    let mut groups = vec![gid];
    let mut add = |gid: u32| {
        if !groups.contains(&gid) {
            groups.push(gid);
        }
    };
    if context.supplemental_groups_policy() == SupplementalGroupsPolicy::Merge
        && let Some(account) = &account
    {
        accounts
            .groups()
            .filter(|group| group.members.split(',').any(|member| member == account.name))
            .for_each(|group| add(group.gid));
    }
    context
        .supplemental_groups
        .iter()
        .filter_map(|gid| u32::try_from(*gid).ok())
        .for_each(add);
    Ok(Identity { uid, gid, groups })
}
