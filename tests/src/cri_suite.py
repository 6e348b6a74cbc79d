"""What a runtime has to do for whoever speaks CRI to it, as upstream's critest asks it, by a client that is not ours.

Usage: cri_suite.py SOCKET IMAGE NGINX, with the package container-runtime-interface-api on PYTHONPATH. IMAGE is one in a registry that the
runtime does not have yet, NGINX one that it has. Prints the checks' names, each with "ok" or what went wrong, as one JSON object.
"""

import base64
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.parse
import urllib.request

import grpc
from cri_api.v1 import api_pb2 as v1
from cri_api.v1 import api_pb2_grpc as services

SOCKET, IMAGE, NGINX = sys.argv[1:]
BUSYBOX = "localhost/busybox:1"
channel = grpc.insecure_channel("unix://" + SOCKET, options=[("grpc.default_authority", "localhost")])
runtime = services.RuntimeServiceStub(channel)
images = services.ImageServiceStub(channel)
SCRATCH = tempfile.mkdtemp(prefix="cri-suite-", dir=os.path.dirname(SOCKET))
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def same(found, expected):
    assert found == expected, f"expected {expected!r}, found {found!r}"


def code(call):
    try:
        call()
        return "OK"
    except grpc.RpcError as error:
        return error.code().name


def until(look, what):
    end = time.monotonic() + 60
    while not (found := look()):
        assert time.monotonic() < end, f"never came: {what}"
        time.sleep(0.05)
    return found


class Pod:
    """A sandbox that is gone at the end of its check."""

    number = 0

    def __init__(self, labels={}, hostname="", ports=(), dns=None, context=None, **namespaces):
        Pod.number += 1
        name = f"pod-{Pod.number}"
        self.logs = os.path.join(SCRATCH, name)
        os.makedirs(self.logs)
        context = context or {}
        self.config = v1.PodSandboxConfig(
            metadata=v1.PodSandboxMetadata(name=name, uid="uid-" + name, namespace="suite", attempt=2),
            hostname=hostname,
            log_directory=self.logs,
            labels=labels,
            annotations={"note": name},
            port_mappings=ports,
            dns_config=dns,
            linux=v1.LinuxPodSandboxConfig(
                security_context=v1.LinuxSandboxSecurityContext(namespace_options=v1.NamespaceOption(**namespaces), **context)
            ),
        )
        self.namespaces = namespaces
        self.id = runtime.RunPodSandbox(v1.RunPodSandboxRequest(config=self.config)).pod_sandbox_id

    def status(self):
        return runtime.PodSandboxStatus(v1.PodSandboxStatusRequest(pod_sandbox_id=self.id)).status

    def create(self, name, command=("sleep", "1000"), image=BUSYBOX, mounts=(), labels={}, context=None, **more):
        context = {"namespace_options": v1.NamespaceOption(**self.namespaces), **(context or {})}
        config = v1.ContainerConfig(
            metadata=v1.ContainerMetadata(name=name, attempt=3),
            image=v1.ImageSpec(image=image),
            command=command,
            mounts=mounts,
            labels=labels,
            log_path=name + ".log",
            linux=v1.LinuxContainerConfig(security_context=v1.LinuxContainerSecurityContext(**context)),
            **more,
        )
        request = v1.CreateContainerRequest(pod_sandbox_id=self.id, config=config, sandbox_config=self.config)
        return runtime.CreateContainer(request).container_id

    def start(self, name, *args, **more):
        container = self.create(name, *args, **more)
        runtime.StartContainer(v1.StartContainerRequest(container_id=container))
        return container

    def log(self, name):
        with open(os.path.join(self.logs, name + ".log")) as log:
            return log.read()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        runtime.StopPodSandbox(v1.StopPodSandboxRequest(pod_sandbox_id=self.id))
        runtime.RemovePodSandbox(v1.RemovePodSandboxRequest(pod_sandbox_id=self.id))
        same(code(self.status), "NOT_FOUND")


def status(container):
    return runtime.ContainerStatus(v1.ContainerStatusRequest(container_id=container)).status


def ended(container):
    until(lambda: status(container).state == v1.CONTAINER_EXITED, f"the end of {container}")
    return status(container)


def run(container, *command):
    done = runtime.ExecSync(v1.ExecSyncRequest(container_id=container, cmd=command))
    assert done.exit_code == 0, f"{command}: {done.exit_code} {done.stderr.decode()}"
    return done.stdout.decode()


def sh(container, script):
    return run(container, "sh", "-c", script)


def stop(container, timeout=0):
    runtime.StopContainer(v1.StopContainerRequest(container_id=container, timeout=timeout))


class WebSocket:
    """Enough of RFC 6455 for a session at a runtime's streaming server."""

    def __init__(self, url, protocol):
        parts = urllib.parse.urlsplit(url)
        self.socket = socket.create_connection((parts.hostname, parts.port), timeout=60)
        key = base64.b64encode(os.urandom(16)).decode()
        path = parts.path + ("?" + parts.query if parts.query else "")
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n".encode()
        )
        self.stream = self.socket.makefile("rb")
        line = self.stream.readline()
        assert b" 101 " in line, line
        while self.stream.readline().strip():
            pass

    def send(self, channel, data):
        body = bytes([channel]) + data
        assert len(body) < 126
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[n % 4] for n, byte in enumerate(body))
        self.socket.sendall(bytes([0x82, 0x80 | len(body)]) + mask + masked)

    def messages(self):
        """Channel and data of each message until the server closes."""
        while len(head := self.stream.read(2)) == 2:
            length = head[1] & 0x7F
            if length == 126:
                (length,) = struct.unpack(">H", self.stream.read(2))
            elif length == 127:
                (length,) = struct.unpack(">Q", self.stream.read(8))
            body = self.stream.read(length)
            if head[0] & 0x0F == 8:
                return
            if head[0] & 0x0F in (1, 2) and body:
                yield body[0], body[1:]


@check
def sandboxes_are_run_listed_stopped_and_removed():
    with Pod(labels={"color": "red"}) as pod, Pod(labels={"color": "blue"}) as other:
        found = pod.status()
        same(found.state, v1.SANDBOX_READY)
        same((found.metadata.name, found.metadata.namespace, found.metadata.attempt), (pod.config.metadata.name, "suite", 2))
        same(dict(found.labels), {"color": "red"})
        same(dict(found.annotations), {"note": pod.config.metadata.name})
        assert found.created_at > 0 and found.network.ip

        def listed(**filter):
            answer = runtime.ListPodSandbox(v1.ListPodSandboxRequest(filter=v1.PodSandboxFilter(**filter)))
            return {item.id for item in answer.items}

        ready = v1.PodSandboxStateValue(state=v1.SANDBOX_READY)
        same(listed(id=pod.id), {pod.id})
        same(listed(label_selector={"color": "blue"}), {other.id})
        assert {pod.id, other.id} <= listed(state=ready)
        runtime.StopPodSandbox(v1.StopPodSandboxRequest(pod_sandbox_id=pod.id))
        same(pod.status().state, v1.SANDBOX_NOTREADY)
        assert pod.id not in listed(state=ready) and pod.id in listed()


@check
def containers_go_from_created_to_removed():
    with Pod() as pod:
        container = pod.create("main", labels={"tier": "front"})
        found = status(container)
        same((found.state, found.metadata.name, found.metadata.attempt), (v1.CONTAINER_CREATED, "main", 3))
        same(found.started_at, 0)
        runtime.StartContainer(v1.StartContainerRequest(container_id=container))
        same(status(container).state, v1.CONTAINER_RUNNING)
        assert code(lambda: runtime.StartContainer(v1.StartContainerRequest(container_id=container))) != "OK"

        def listed(**filter):
            answer = runtime.ListContainers(v1.ListContainersRequest(filter=v1.ContainerFilter(**filter)))
            return [item.id for item in answer.containers]

        running = v1.ContainerStateValue(state=v1.CONTAINER_RUNNING)
        for filter in [{"id": container}, {"pod_sandbox_id": pod.id, "state": running}, {"label_selector": {"tier": "front"}}]:
            same(listed(**filter), [container])
        stop(container, 5)
        found = status(container)
        same(found.state, v1.CONTAINER_EXITED)
        assert found.created_at <= found.started_at <= found.finished_at
        same(listed(id=container, state=running), [])
        runtime.RemoveContainer(v1.RemoveContainerRequest(container_id=container))
        same(code(lambda: status(container)), "NOT_FOUND")


@check
def ends_have_codes_and_reasons():
    with Pod(pid=v1.CONTAINER) as pod:
        for name, script, expected in [("good", "exit 0", (0, "Completed")), ("bad", "exit 7", (7, "Error"))]:
            found = ended(pod.start(name, ("sh", "-c", script)))
            same((found.exit_code, found.reason), expected)
        trapper = pod.start("trapper", ("sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.1; done"))
        catches = lambda container: until(lambda: traps(container), "its trap")
        catches(trapper)
        stop(trapper, 30)
        same(status(trapper).exit_code, 9)
        deaf = pod.start("deaf", ("sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"))
        catches(deaf)
        begun = time.monotonic()
        stop(deaf, 1)
        assert time.monotonic() - begun >= 1
        same(status(deaf).exit_code, 137)


def traps(container):
    """Whether a container's first process catches or ignores SIGTERM."""
    masks = re.findall(r"Sig(?:Ign|Cgt):\s*(\w+)", sh(container, "cat /proc/1/status"))
    return any(int(mask, 16) & 1 << 14 for mask in masks)


@check
def commands_run_in_a_container():
    with Pod() as pod:
        container = pod.start("main")
        done = runtime.ExecSync(v1.ExecSyncRequest(container_id=container, cmd=["sh", "-c", "echo a; echo b >&2; exit 5"], timeout=30))
        same((done.exit_code, done.stdout, done.stderr), (5, b"a\n", b"b\n"))
        late = lambda: runtime.ExecSync(v1.ExecSyncRequest(container_id=container, cmd=["sleep", "1000"], timeout=1))
        same(code(late), "DEADLINE_EXCEEDED")
        assert code(lambda: run(container, "no-such-program")) != "OK"
        created = pod.create("created")
        assert code(lambda: run(created, "true")) != "OK", "it does not run"


@check
def logs_are_in_the_format_of_cri_and_reopened():
    with Pod() as pod:
        container = pod.start("main", ("sh", "-c", "echo out; echo err >&2; exec sleep 1000"))
        until(lambda: len(pod.log("main").splitlines()) == 2, "the log")
        line = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(?:Z|[+-]\d\d:\d\d) (stdout|stderr) (F|P) (.*)$")
        found = sorted(line.match(text).groups() for text in pod.log("main").splitlines())
        same(found, [("stderr", "F", "err"), ("stdout", "F", "out")])
        noisy = pod.start("noisy", ("sh", "-c", "i=0; while :; do echo $i; i=$((i+1)); sleep 0.01; done"))
        path = os.path.join(pod.logs, "noisy.log")
        until(lambda: "5" in pod.log("noisy"), "some lines")
        os.rename(path, path + ".old")
        runtime.ReopenContainerLog(v1.ReopenContainerLogRequest(container_id=noisy))
        until(lambda: len(pod.log("noisy").splitlines()) > 5, "lines in the new file")
        stop(noisy)
        with open(path + ".old") as old:
            numbers = [text.split(" ")[3] for text in (old.read() + pod.log("noisy")).splitlines()]
        same(numbers, [str(n) for n in range(len(numbers))])
        assert code(lambda: runtime.ReopenContainerLog(v1.ReopenContainerLogRequest(container_id=noisy))) != "OK"


@check
def a_pod_of_two_containers_shares_network_and_folder():
    with Pod(hostname="together") as pod, tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
        # The server's workers are not root.
        os.chmod(folder, 0o755)
        mount = lambda path, **more: v1.Mount(host_path=folder, container_path=path, **more)
        web = pod.start("web", (), image=NGINX, mounts=[mount("/usr/share/nginx/html/shared", readonly=True)])
        client = pod.start("client", mounts=[mount("/shared")])
        sh(client, "echo from the other > /shared/page")
        page = until(lambda: sh(client, "wget -qO- http://127.0.0.1/shared/page || true"), "an answer")
        same(page, "from the other\n")
        same(sh(client, "hostname"), "together\n")
        same(status(web).state, v1.CONTAINER_RUNNING)
        # From the node by the pod's address.
        with urllib.request.urlopen(f"http://{pod.status().network.ip}/shared/page", timeout=60) as answer:
            same(answer.read(), b"from the other\n")


@check
def names_resolve_as_the_sandbox_says():
    dns = v1.DNSConfig(servers=["10.10.10.10"], searches=["google.com"], options=["ndots:8"])
    with Pod(dns=dns) as pod:
        container = pod.start("main")
        same(sh(container, "cat /etc/resolv.conf").split("\n")[:3], ["search google.com", "nameserver 10.10.10.10", "options ndots:8"])


@check
def ports_of_the_node_lead_to_the_pod():
    with Pod(ports=[v1.PortMapping(protocol=v1.TCP, container_port=80, host_port=12001)]) as pod:
        pod.start("web", (), image=NGINX)
        address = node_address()

        def page():
            try:
                with urllib.request.urlopen(f"http://{address}:12001/", timeout=5) as answer:
                    return answer.read()
            except OSError:
                return b""

        assert b"Welcome to nginx!" in until(page, "a page at the node's port")


def node_address():
    shown = subprocess.run(["ip", "-4", "-o", "address", "show", "scope", "global"], capture_output=True, text=True, check=True)
    return next(word.split("/")[0] for line in shown.stdout.splitlines() for word in line.split() if re.match(r"192\.0\.2\.\d+/", word))


@check
def namespaces_are_the_nodes_the_pods_or_the_containers():
    own = lambda kind: os.readlink(f"/proc/self/ns/{kind}")
    of = lambda container, kind: sh(container, f"readlink /proc/self/ns/{kind}").strip()
    with Pod(network=v1.NODE, pid=v1.NODE, ipc=v1.NODE) as pod:
        container = pod.start("main")
        same([of(container, kind) for kind in ("net", "pid", "ipc")], [own(kind) for kind in ("net", "pid", "ipc")])
    with Pod(network=v1.POD, pid=v1.POD, ipc=v1.POD) as pod:
        one, other = pod.start("one"), pod.start("other")
        for kind in ("net", "pid", "ipc", "uts"):
            same(of(one, kind), of(other, kind))
            assert of(one, kind) != own(kind), kind
    with Pod(network=v1.POD, pid=v1.CONTAINER, ipc=v1.POD) as pod:
        one, other = pod.start("one"), pod.start("other")
        assert of(one, "pid") != of(other, "pid")
        same(sh(one, "cat /proc/1/cmdline").split("\0")[0], "sleep")


@check
def users_groups_and_capabilities():
    number = lambda value: v1.Int64Value(value=value)
    capabilities = lambda container: int(re.search(r"CapEff:\s*(\w+)", sh(container, "cat /proc/self/status"))[1], 16)
    with Pod() as pod:
        user = pod.start("user", context={"run_as_user": number(1001), "run_as_group": number(1002), "supplemental_groups": [1234]})
        same(sh(user, "id -u; id -G"), "1001\n1002 1234\n")
        net_admin, chown = 1 << 12, 1 << 0
        plain = pod.start("plain")
        same((capabilities(plain) & net_admin, capabilities(plain) & chown), (0, chown))
        more = pod.start("more", context={"capabilities": v1.Capability(add_capabilities=["NET_ADMIN"], drop_capabilities=["CHOWN"])})
        same((capabilities(more) & net_admin, capabilities(more) & chown), (net_admin, 0))
        none = pod.start("none", context={"capabilities": v1.Capability(drop_capabilities=["ALL"])})
        same(capabilities(none), 0)
    with Pod(context={"privileged": True}) as pod:
        privileged = pod.start("privileged", context={"privileged": True})
        run(privileged, "mount", "-t", "tmpfs", "tmpfs", "/tmp")
        assert "denied" in sh(pod.start("plain"), "mount -t tmpfs tmpfs /tmp 2>&1 || true")


@check
def what_a_container_may_is_confined():
    with Pod() as pod:
        fixed = pod.start("fixed", context={"readonly_rootfs": True})
        assert sh(fixed, "touch /x 2>&1 || true").strip().endswith("Read-only file system")
        gains_nothing = pod.start("gains-nothing", context={"no_new_privs": True})
        assert "NoNewPrivs:\t1" in sh(gains_nothing, "cat /proc/self/status")
        paths = {"masked_paths": ["/etc/hostname"], "readonly_paths": ["/tmp"]}
        masked = pod.start("masked", context=paths)
        same(sh(masked, "cat /etc/hostname"), "")
        assert "Read-only" in sh(masked, "touch /tmp/x 2>&1 || true")
        mode = lambda container: re.search(r"Seccomp:\s*(\d)", sh(container, "cat /proc/self/status"))[1]
        for name, kind, expected in [("default", v1.SecurityProfile.RuntimeDefault, "2"), ("unconfined", v1.SecurityProfile.Unconfined, "0")]:
            same(mode(pod.start(name, context={"seccomp": v1.SecurityProfile(profile_type=kind)})), expected)
        profile = os.path.join(SCRATCH, "no-chmod.json")
        with open(profile, "w") as file:
            calls = {"names": ["chmod", "fchmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO"}
            json.dump({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [calls]}, file)
        local = v1.SecurityProfile(profile_type=v1.SecurityProfile.Localhost, localhost_ref=profile)
        own = pod.start("own", context={"seccomp": local})
        assert "not permitted" in sh(own, "touch /f; chmod 400 /f 2>&1 || true")


@check
def mounts_propagate_as_they_say():
    with tempfile.TemporaryDirectory(dir=SCRATCH) as folder, Pod(context={"privileged": True}) as pod:
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=True)
        try:
            subprocess.run(["mount", "--make-shared", folder], check=True)
            kinds = {
                "private": v1.PROPAGATION_PRIVATE,
                "slave": v1.PROPAGATION_HOST_TO_CONTAINER,
                "shared": v1.PROPAGATION_BIDIRECTIONAL,
            }
            containers = {
                name: pod.start(name, mounts=[v1.Mount(host_path=folder, container_path="/m", propagation=kind)], context={"privileged": True})
                for name, kind in kinds.items()
            }
            os.makedirs(os.path.join(folder, "late"))
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", os.path.join(folder, "late")], check=True)
            seen = {name: "/m/late" in sh(container, "cat /proc/mounts") for name, container in containers.items()}
            same(seen, {"private": False, "slave": True, "shared": True})
            subprocess.run(["umount", os.path.join(folder, "late")], check=True)
            os.makedirs(os.path.join(folder, "own"))
            sh(containers["shared"], "mount -t tmpfs tmpfs /m/own && touch /m/own/file")
            same(os.listdir(os.path.join(folder, "own")), ["file"])
            subprocess.run(["umount", os.path.join(folder, "own")], check=True)
        finally:
            subprocess.run(["umount", "-l", folder], check=True)


@check
def a_mounted_link_is_followed_and_devices_are_given():
    with Pod() as pod:
        folder = os.path.join(SCRATCH, "folder")
        os.makedirs(folder)
        link = os.path.join(SCRATCH, "link")
        os.symlink(folder, link)
        device = v1.Device(container_path="/dev/given", host_path="/dev/null", permissions="rwm")
        container = pod.start("main", mounts=[v1.Mount(host_path=link, container_path="/m")], devices=[device])
        sh(container, "echo text > /m/file; echo gone > /dev/given")
        with open(os.path.join(folder, "file")) as file:
            same(file.read(), "text\n")


@check
def statistics_are_told_by_container_pod_and_label():
    with Pod(labels={"kind": "counted"}) as pod:
        container = pod.start("main", ("sh", "-c", "while :; do :; done"), labels={"counted": "yes"})
        pod.start("other")

        def listed(**filter):
            answer = runtime.ListContainerStats(v1.ListContainerStatsRequest(filter=v1.ContainerStatsFilter(**filter)))
            return [item.attributes.id for item in answer.stats]

        same(listed(id=container), [container])
        same(listed(label_selector={"counted": "yes"}), [container])
        same(len(listed(pod_sandbox_id=pod.id)), 2)
        one = lambda: runtime.ContainerStats(v1.ContainerStatsRequest(container_id=container)).stats
        first = one().cpu.usage_core_nano_seconds.value
        until(lambda: one().cpu.usage_core_nano_seconds.value > first, "more time of a processor")
        of_pod = runtime.PodSandboxStats(v1.PodSandboxStatsRequest(pod_sandbox_id=pod.id)).stats
        same((of_pod.attributes.id, len(of_pod.linux.containers)), (pod.id, 2))
        assert of_pod.linux.memory.working_set_bytes.value > 0


@check
def events_tell_each_step_in_order():
    events = runtime.GetContainerEvents(v1.GetEventsRequest(), timeout=60)
    # It is there when its head has come.
    events.initial_metadata()
    with Pod() as pod:
        container = pod.start("main")
        stop(container)
        runtime.RemoveContainer(v1.RemoveContainerRequest(container_id=container))
    told = []
    for event in events:
        if event.container_id == container:
            told.append(event.container_event_type)
            same(event.pod_sandbox_status.id, pod.id)
        if event.container_id == pod.id and event.container_event_type == v1.CONTAINER_DELETED_EVENT:
            break
    events.cancel()
    same(told, [v1.CONTAINER_CREATED_EVENT, v1.CONTAINER_STARTED_EVENT, v1.CONTAINER_STOPPED_EVENT, v1.CONTAINER_DELETED_EVENT])


@check
def images_are_pulled_found_listed_and_removed():
    spec = v1.ImageSpec(image=IMAGE)
    found = lambda image=IMAGE: images.ImageStatus(v1.ImageStatusRequest(image=v1.ImageSpec(image=image))).image
    same(found().id, "")
    pulled = images.PullImage(v1.PullImageRequest(image=spec)).image_ref
    image = found()
    same((image.id, list(image.repo_tags)), (pulled, [IMAGE]))
    assert image.size > 0 and not image.pinned
    (digest,) = image.repo_digests
    assert re.fullmatch(re.escape(IMAGE.rsplit(":", 1)[0]) + "@sha256:[0-9a-f]{64}", digest), digest
    same([found(name).id for name in (digest, image.id)], [image.id, image.id])
    listed = images.ListImages(v1.ListImagesRequest(filter=v1.ImageFilter(image=spec))).images
    same([item.id for item in listed], [image.id])
    with Pod() as pod:
        container = pod.start("main", (), image=IMAGE)
        same((status(container).image.image, status(container).image_ref), (IMAGE, digest))
    for _ in range(2):
        images.RemoveImage(v1.RemoveImageRequest(image=spec))
    same(found().id, "")
    same(images.PullImage(v1.PullImageRequest(image=v1.ImageSpec(image=digest))).image_ref, pulled)
    same(list(found(digest).repo_tags), [])
    images.RemoveImage(v1.RemoveImageRequest(image=v1.ImageSpec(image=digest)))
    assert code(lambda: images.PullImage(v1.PullImageRequest(image=v1.ImageSpec(image=IMAGE + "-not-there")))) != "OK"


@check
def sessions_run_at_the_streaming_server():
    with Pod() as pod:
        container = pod.start("main", ("sh", "-c", "while read line; do echo got $line; done"), stdin=True)
        protocol = "v4.channel.k8s.io"
        request = v1.ExecRequest(container_id=container, cmd=["sh", "-c", "read a; echo $a; echo b >&2; exit 3"], stdin=True, stdout=True, stderr=True)
        session = WebSocket(runtime.Exec(request).url, protocol)
        session.send(0, b"hello\n")
        told = {}
        for number, data in session.messages():
            told[number] = told.get(number, b"") + data
        same((told[1], told[2]), (b"hello\n", b"b\n"))
        end = json.loads(told[3])
        same((end["status"], end["reason"], end["details"]["causes"][0]["message"]), ("Failure", "NonZeroExitCode", "3"))

        request = v1.ExecRequest(container_id=container, cmd=["sh", "-c", "test -t 0 && stty size"], stdin=True, stdout=True, tty=True)
        session = WebSocket(runtime.Exec(request).url, protocol)
        assert b"".join(data for number, data in session.messages() if number == 1).endswith(b"\r\n")

        session = WebSocket(runtime.Attach(v1.AttachRequest(container_id=container, stdin=True, stdout=True)).url, protocol)
        session.send(0, b"this\n")
        same(next(data for number, data in session.messages() if number == 1 and data), b"got this\n")

        pod.start("web", (), image=NGINX)
        until(lambda: "1" in sh(container, "wget -qO- http://127.0.0.1/ >/dev/null && echo 1 || true"), "the server")
        url = runtime.PortForward(v1.PortForwardRequest(pod_sandbox_id=pod.id, port=[80])).url
        session = WebSocket(url + ("&" if "?" in url else "?") + "ports=80", protocol)
        session.send(0, b"GET / HTTP/1.0\r\n\r\n")
        # The first message of each channel is the port's number.
        assert any(b"Welcome to nginx!" in data for number, data in session.messages() if number == 0)


@check
def what_contradicts_itself_is_refused():
    one, shifted = v1.IDMapping(host_id=1000, container_id=0, length=100000), v1.IDMapping(host_id=1000, container_id=1, length=100000)
    for namespaces, expected in [
        (users(v1.POD, one, one), "INVALID_ARGUMENT"),
        (users(v1.POD, shifted), "INVALID_ARGUMENT"),
        (users(v1.CONTAINER), "INVALID_ARGUMENT"),
        (users(v1.TARGET), "INVALID_ARGUMENT"),
    ]:
        same(code(lambda: Pod(userns_options=namespaces)), expected)
    with Pod() as pod:
        group = {"run_as_group": v1.Int64Value(value=1002)}
        same(code(lambda: pod.create("grouped", context=group)), "UNKNOWN")
        deep = v1.Mount(host_path=SCRATCH, container_path="/deep", recursive_read_only=True)
        same(code(lambda: pod.create("deep", mounts=[deep])), "UNKNOWN")


def users(mode, *mappings):
    return v1.UserNamespace(mode=mode, uids=mappings, gids=mappings)


@check
def a_pod_has_users_of_its_own():
    with Pod(userns_options=users(v1.POD, v1.IDMapping(host_id=1000, container_id=0, length=100000))) as pod:
        ended(pod.start("printer", ("cat", "/proc/self/uid_map")))
        same(pod.log("printer").split(" F ", 1)[1], "         0       1000     100000\n")


@check
def resources_are_changed_while_it_runs():
    with Pod() as pod:
        container = pod.start("main")
        limits = v1.LinuxContainerResources(memory_limit_in_bytes=64 << 20)
        runtime.UpdateContainerResources(v1.UpdateContainerResourcesRequest(container_id=container, linux=limits))
        same(status(container).resources.linux.memory_limit_in_bytes, 64 << 20)
        runtime.UpdatePodSandboxResources(v1.UpdatePodSandboxResourcesRequest(pod_sandbox_id=pod.id, resources=limits))


@check
def ends_are_the_same_however_often_they_are_asked_for():
    pod = Pod()
    container = pod.start("main")
    for _ in range(2):
        stop(container)
        runtime.RemoveContainer(v1.RemoveContainerRequest(container_id=container))
    pod.start("still-runs")
    for _ in range(2):
        with pod:
            pass


def give_up(*_):
    raise TimeoutError("the check takes too long")


signal.signal(signal.SIGALRM, give_up)
answers = {}
for function in CHECKS:
    try:
        signal.alarm(120)
        function()
        answers[function.__name__] = "ok"
    except Exception:  # what went wrong is the answer
        answers[function.__name__] = traceback.format_exc()
json.dump(answers, sys.stdout)
