//! The command line of kubectl.

use std::path::PathBuf;

use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand, ValueEnum};

/// kubectl controls the Kubernetes cluster manager.
#[derive(Parser, Debug)]
#[command(name = "kubectl", disable_version_flag = true, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Flags that every command takes.
#[derive(Args, Debug, Clone, Default)]
pub struct Global {
    /// Path to the kubeconfig file to use for CLI requests.
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The name of the kubeconfig context to use
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// The name of the kubeconfig cluster to use
    #[arg(long, global = true, value_name = "NAME")]
    pub cluster: Option<String>,
    /// The name of the kubeconfig user to use
    #[arg(long, global = true, value_name = "NAME")]
    pub user: Option<String>,
    /// If present, the namespace scope for this CLI request
    #[arg(short, long, global = true, value_name = "NAME")]
    pub namespace: Option<String>,
    /// The address and port of the Kubernetes API server
    #[arg(short, long, global = true, value_name = "URL")]
    pub server: Option<String>,
    /// Bearer token for authentication to the API server
    #[arg(long, global = true)]
    pub token: Option<String>,
    /// If true, the server's certificate will not be checked for validity.
    #[arg(long, global = true)]
    pub insecure_skip_tls_verify: bool,
}

/// The command line with its switches as upstream takes them: `--wait`, `--wait=true` and `--wait=false`.
pub fn command() -> clap::Command {
    switches(Cli::command())
}

fn switches(command: clap::Command) -> clap::Command {
    command
        .mut_args(|argument| {
            let on = argument.get_default_values().iter().any(|value| value == "true");
            let argument = match argument.get_action() {
                ArgAction::SetTrue => argument.action(ArgAction::Set).default_value("false"),
                _ if on || argument.get_id() == "namespaced" => argument,
                _ => return argument,
            };
            argument
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
                .value_parser(clap::value_parser!(bool))
        })
        .mut_subcommands(switches)
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Create a resource from a file or from stdin
    Create(Create),
    /// Display one or many resources
    Get(Get),
    /// Show details of a specific resource or group of resources
    Describe(Describe),
    /// Print the logs for a container in a pod
    Logs(Logs),
    /// Execute a command in a container
    Exec(Exec),
    /// Delete resources by file names, stdin, resources and names, or by resources and label selector
    Delete(Delete),
    /// Apply a configuration to a resource by file name or stdin
    Apply(Apply),
    /// Print the client and server version information
    Version(Version),
    /// Print the supported API resources on the server
    #[command(name = "api-resources")]
    ApiResources(ApiResources),
    /// Display cluster information
    #[command(name = "cluster-info")]
    ClusterInfo,
    /// Modify kubeconfig files
    #[command(subcommand)]
    Config(ConfigCommand),
}

/// Where objects come from.
#[derive(Args, Debug, Clone, Default)]
pub struct Files {
    /// The files that contain the configurations
    #[arg(short = 'f', long = "filename", value_name = "FILE", value_delimiter = ',')]
    pub filename: Vec<String>,
    /// Process the directory used in -f, --filename recursively.
    #[arg(short = 'R', long)]
    pub recursive: bool,
}

/// Which objects of a resource.
#[derive(Args, Debug, Clone, Default)]
pub struct Selectors {
    /// Selector (label query) to filter on
    #[arg(short = 'l', long, value_name = "QUERY")]
    pub selector: Option<String>,
    /// Selector (field query) to filter on
    #[arg(long, value_name = "QUERY")]
    pub field_selector: Option<String>,
}

/// How a change is only tried.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DryRun {
    /// It is made.
    #[default]
    None,
    /// It is not even sent.
    Client,
    /// The server answers as if, and keeps nothing.
    Server,
}

impl DryRun {
    /// What stands behind the outcome.
    pub fn note(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Client => " (dry run)",
            Self::Server => " (server dry run)",
        }
    }
}

#[derive(Args, Debug)]
pub struct Create {
    #[command(flatten)]
    pub files: Files,
    /// Output format. One of: (json, yaml, name, jsonpath)
    #[arg(short, long)]
    pub output: Option<String>,
    /// Must be "none", "server", or "client".
    #[arg(long, value_enum, default_value = "none", num_args = 0..=1, default_missing_value = "client", require_equals = true)]
    pub dry_run: DryRun,
    /// Must be one of: strict (or true), warn, ignore (or false).
    #[arg(long, default_value = "strict", num_args = 0..=1, default_missing_value = "strict", require_equals = true)]
    pub validate: String,
    /// If true, the configuration of current object will be saved in its annotation.
    #[arg(long)]
    pub save_config: bool,
}

#[derive(Args, Debug)]
pub struct Get {
    /// TYPE, TYPE NAME…, TYPE/NAME…
    pub targets: Vec<String>,
    #[command(flatten)]
    pub files: Files,
    #[command(flatten)]
    pub selectors: Selectors,
    /// Output format. One of: (json, yaml, name, jsonpath, custom-columns, wide)
    #[arg(short, long)]
    pub output: Option<String>,
    /// After listing/getting the requested object, watch for changes.
    #[arg(short, long)]
    pub watch: bool,
    /// Watch for changes to the requested object(s), without listing/getting first.
    #[arg(long)]
    pub watch_only: bool,
    /// Output watch event objects when --watch or --watch-only is used. Existing objects are output as initial ADDED events.
    #[arg(long)]
    pub output_watch_events: bool,
    /// If present, list the requested object(s) across all namespaces.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// If non-empty, sort list types using this field specification.
    #[arg(long, value_name = "PATH")]
    pub sort_by: Option<String>,
    /// When using the default or custom-column output format, don't print headers
    #[arg(long)]
    pub no_headers: bool,
    /// When printing, show all labels as the last column
    #[arg(long)]
    pub show_labels: bool,
    /// If present, list the resource type for the requested object(s).
    #[arg(long)]
    pub show_kind: bool,
    /// Labels that are going to be presented as columns.
    #[arg(short = 'L', long, value_delimiter = ',')]
    pub label_columns: Vec<String>,
    /// If true, keep the managedFields when printing objects in JSON or YAML format.
    #[arg(long)]
    pub show_managed_fields: bool,
    /// If the requested object does not exist the command will return exit code 0.
    #[arg(long)]
    pub ignore_not_found: bool,
    /// Return large lists in chunks rather than all at once.
    #[arg(long, default_value_t = 500)]
    pub chunk_size: u32,
    /// Name of the manifest to read as raw URI from the server.
    #[arg(long, value_name = "PATH")]
    pub raw: Option<String>,
}

#[derive(Args, Debug)]
pub struct Describe {
    /// TYPE, TYPE NAME…, TYPE/NAME…
    pub targets: Vec<String>,
    #[command(flatten)]
    pub files: Files,
    #[command(flatten)]
    pub selectors: Selectors,
    /// If present, list the requested object(s) across all namespaces.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// If true, display events related to the described object.
    #[arg(long, default_value = "true", action = ArgAction::Set)]
    pub show_events: bool,
}

#[derive(Args, Debug)]
pub struct Logs {
    /// POD or TYPE/NAME, and the container
    pub target: Vec<String>,
    /// Print the logs of this container
    #[arg(short, long)]
    pub container: Option<String>,
    /// Get all containers' logs in the pod(s).
    #[arg(long)]
    pub all_containers: bool,
    /// Specify if the logs should be streamed.
    #[arg(short, long)]
    pub follow: bool,
    /// If true, print the logs for the previous instance of the container in a pod if it exists.
    #[arg(short, long)]
    pub previous: bool,
    /// Lines of recent log file to display. -1 shows all.
    #[arg(long, allow_negative_numbers = true)]
    pub tail: Option<i64>,
    /// Only return logs newer than a relative duration like 5s, 2m, or 3h.
    #[arg(long, value_name = "DURATION")]
    pub since: Option<String>,
    /// Only return logs after a specific date (RFC3339).
    #[arg(long, value_name = "TIME")]
    pub since_time: Option<String>,
    /// Include timestamps on each line in the log output
    #[arg(long)]
    pub timestamps: bool,
    /// Maximum bytes of logs to return.
    #[arg(long)]
    pub limit_bytes: Option<i64>,
    /// Prefix each log line with the log source (pod name and container name)
    #[arg(long)]
    pub prefix: bool,
    /// Selector (label query) to filter on
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
}

#[derive(Args, Debug)]
pub struct Exec {
    /// POD or TYPE/NAME
    pub target: Vec<String>,
    /// The command and its arguments, after --
    #[arg(last = true)]
    pub command: Vec<String>,
    /// Container name.
    #[arg(short, long)]
    pub container: Option<String>,
    /// Pass stdin to the container
    #[arg(short = 'i', long)]
    pub stdin: bool,
    /// Stdin is a TTY
    #[arg(short, long)]
    pub tty: bool,
    /// Only print output from the remote session
    #[arg(short, long)]
    pub quiet: bool,
}

#[derive(Args, Debug)]
pub struct Delete {
    /// TYPE, TYPE NAME…, TYPE/NAME…
    pub targets: Vec<String>,
    #[command(flatten)]
    pub files: Files,
    #[command(flatten)]
    pub selectors: Selectors,
    /// Delete all resources, in the namespace of the specified resource types.
    #[arg(long)]
    pub all: bool,
    /// If present, list the requested object(s) across all namespaces.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Immediately remove resources from API and bypass graceful deletion.
    #[arg(long)]
    pub force: bool,
    /// Period of time in seconds given to the resource to terminate gracefully.
    #[arg(long, allow_negative_numbers = true, default_value_t = -1)]
    pub grace_period: i64,
    /// If true, resources are signaled for immediate shutdown (same as --grace-period=1).
    #[arg(long)]
    pub now: bool,
    /// If true, wait for resources to be gone before returning.
    #[arg(long, default_value = "true", action = ArgAction::Set)]
    pub wait: bool,
    /// The length of time to wait before giving up on a delete, zero means determine a timeout from the size of the object
    #[arg(long, value_name = "DURATION")]
    pub timeout: Option<String>,
    /// Must be "background", "orphan", or "foreground".
    #[arg(long, default_value = "background", num_args = 0..=1, default_missing_value = "background", require_equals = true)]
    pub cascade: String,
    /// Treat "resource not found" as a successful delete.
    #[arg(long)]
    pub ignore_not_found: bool,
    /// Output mode. Use "-o name" for shorter output (resource/name).
    #[arg(short, long)]
    pub output: Option<String>,
    /// Must be "none", "server", or "client".
    #[arg(long, value_enum, default_value = "none", num_args = 0..=1, default_missing_value = "client", require_equals = true)]
    pub dry_run: DryRun,
}

#[derive(Args, Debug)]
pub struct Apply {
    #[command(flatten)]
    pub files: Files,
    /// Output format. One of: (json, yaml, name, jsonpath)
    #[arg(short, long)]
    pub output: Option<String>,
    /// Must be "none", "server", or "client".
    #[arg(long, value_enum, default_value = "none", num_args = 0..=1, default_missing_value = "client", require_equals = true)]
    pub dry_run: DryRun,
    /// Must be one of: strict (or true), warn, ignore (or false).
    #[arg(long, default_value = "strict", num_args = 0..=1, default_missing_value = "strict", require_equals = true)]
    pub validate: String,
}

#[derive(Args, Debug)]
pub struct Version {
    /// If true, shows client version only (no server required).
    #[arg(long)]
    pub client: bool,
    /// One of 'yaml' or 'json'.
    #[arg(short, long)]
    pub output: Option<String>,
}

#[derive(Args, Debug)]
pub struct ApiResources {
    /// Limit to resources in the specified API group.
    #[arg(long)]
    pub api_group: Option<String>,
    /// If false, non-namespaced resources will be returned, otherwise returning namespaced resources by default.
    #[arg(long)]
    pub namespaced: Option<bool>,
    /// Limit to resources that support the specified verbs.
    #[arg(long, value_delimiter = ',')]
    pub verbs: Vec<String>,
    /// Limit to resources that belong to the specified categories.
    #[arg(long, value_delimiter = ',')]
    pub categories: Vec<String>,
    /// When using the default or custom-column output format, don't print headers
    #[arg(long)]
    pub no_headers: bool,
    /// Output format. One of: (name, wide).
    #[arg(short, long)]
    pub output: Option<String>,
}

#[derive(Subcommand, Debug)]
pub enum ConfigCommand {
    /// Display merged kubeconfig settings
    View {
        /// Display raw byte data and sensitive data
        #[arg(long)]
        raw: bool,
        /// Remove all information not used by current-context from the output
        #[arg(long)]
        minify: bool,
        /// Output format. One of: (json, yaml, name, jsonpath)
        #[arg(short, long)]
        output: Option<String>,
    },
    /// Display the current-context
    #[command(name = "current-context")]
    CurrentContext,
}
