"""What crictl asks a runtime, asked by a client that is not ours: version, info, pods, ps, images, exec, logs, stats.

Usage: cri_client.py SOCKET, with the package container-runtime-interface-api on PYTHONPATH. Prints one JSON document.
"""

import json
import os
import sys

import grpc
from google.protobuf.json_format import MessageToDict
from cri_api.v1 import api_pb2 as v1
from cri_api.v1 import api_pb2_grpc as services


def plain(message):
    return MessageToDict(message, always_print_fields_with_no_presence=True)


# The authority that crictl and the kubelet send. Left to itself this client sends the socket's path, which is no authority.
channel = grpc.insecure_channel("unix://" + sys.argv[1], options=[("grpc.default_authority", "localhost")])
runtime = services.RuntimeServiceStub(channel)
images = services.ImageServiceStub(channel)
answers = {
    "version": plain(runtime.Version(v1.VersionRequest())),
    "info": plain(runtime.Status(v1.StatusRequest(verbose=True))),
    "pods": plain(runtime.ListPodSandbox(v1.ListPodSandboxRequest()))["items"],
    "ps": plain(runtime.ListContainers(v1.ListContainersRequest()))["containers"],
    "images": plain(images.ListImages(v1.ListImagesRequest()))["images"],
    "imagefsinfo": plain(images.ImageFsInfo(v1.ImageFsInfoRequest())),
    "stats": plain(runtime.ListContainerStats(v1.ListContainerStatsRequest()))["stats"],
    "statsp": plain(runtime.ListPodSandboxStats(v1.ListPodSandboxStatsRequest()))["stats"],
}
busybox = next(c["id"] for c in answers["ps"] if c["metadata"]["name"] == "busybox")
answers["inspect"] = plain(runtime.ContainerStatus(v1.ContainerStatusRequest(container_id=busybox, verbose=True)))
answers["inspectp"] = plain(
    runtime.PodSandboxStatus(v1.PodSandboxStatusRequest(pod_sandbox_id=answers["pods"][0]["id"], verbose=True))
)
done = runtime.ExecSync(v1.ExecSyncRequest(container_id=busybox, cmd=["sh", "-c", "echo out; echo err >&2; exit 3"]))
answers["exec"] = {"code": done.exit_code, "stdout": done.stdout.decode(), "stderr": done.stderr.decode()}
answers["execUrl"] = runtime.Exec(v1.ExecRequest(container_id=busybox, cmd=["true"], stdout=True)).url
nginx = next(c["id"] for c in answers["ps"] if c["metadata"]["name"] == "nginx")
path = runtime.ContainerStatus(v1.ContainerStatusRequest(container_id=nginx)).status.log_path
answers["logs"] = {"path": path, "there": os.path.isfile(path)}
try:
    runtime.ContainerStatus(v1.ContainerStatusRequest(container_id="nobody"))
    answers["missing"] = "found"
except grpc.RpcError as error:
    answers["missing"] = error.code().name

# What a scraper is given.
answers["descriptors"] = plain(runtime.ListMetricDescriptors(v1.ListMetricDescriptorsRequest()))["descriptors"]
answers["metrics"] = plain(runtime.ListPodSandboxMetrics(v1.ListPodSandboxMetricsRequest()))["podMetrics"]

# What critest asks of a runtime that has no kubelet above it.
LOGS = os.path.join(os.path.dirname(sys.argv[1]), "critest-logs")
os.makedirs(LOGS, exist_ok=True)


def sandbox(name, **options):
    context = v1.LinuxSandboxSecurityContext(namespace_options=v1.NamespaceOption(**options))
    return v1.PodSandboxConfig(
        metadata=v1.PodSandboxMetadata(name=name, uid="uid-" + name, namespace="critest", attempt=1),
        log_directory=LOGS,
        linux=v1.LinuxPodSandboxConfig(security_context=context),
    )


def container(pod, config, name, command, mounts=(), **context):
    config_ = v1.ContainerConfig(
        metadata=v1.ContainerMetadata(name=name, attempt=1),
        image=v1.ImageSpec(image="localhost/busybox:1"),
        command=command,
        mounts=mounts,
        log_path=name + ".log",
        linux=v1.LinuxContainerConfig(security_context=v1.LinuxContainerSecurityContext(**context)),
    )
    request = v1.CreateContainerRequest(pod_sandbox_id=pod, config=config_, sandbox_config=config)
    return runtime.CreateContainer(request).container_id


def refusal(call):
    try:
        call()
        return "OK"
    except grpc.RpcError as error:
        return error.code().name


one, shifted = v1.IDMapping(host_id=1000, container_id=0, length=100000), v1.IDMapping(host_id=1000, container_id=1, length=100000)
users = lambda mode, *mappings: v1.UserNamespace(mode=mode, uids=mappings, gids=mappings)
run = lambda config: runtime.RunPodSandbox(v1.RunPodSandboxRequest(config=config)).pod_sandbox_id
config = sandbox("plain")
pod = run(config)
sleeper = container(pod, config, "sleeper", ["sleep", "1000"])
runtime.StartContainer(v1.StartContainerRequest(container_id=sleeper))
number = v1.Int64Value(value=1002)
deep = v1.Mount(host_path="/tmp", container_path="/deep", recursive_read_only=True)
answers["refused"] = {
    "groupWithoutUser": refusal(lambda: container(pod, config, "grouped", ["true"], run_as_group=number)),
    "writableRecursively": refusal(lambda: container(pod, config, "deep", ["true"], mounts=[deep])),
    "twoRanges": refusal(lambda: run(sandbox("two", userns_options=users(v1.POD, one, one)))),
    "rangeWithoutRoot": refusal(lambda: run(sandbox("shifted", userns_options=users(v1.POD, shifted)))),
    "usersOfContainer": refusal(lambda: run(sandbox("own", userns_options=users(v1.CONTAINER)))),
    "usersOfTarget": refusal(lambda: run(sandbox("target", userns_options=users(v1.TARGET)))),
    "execTimeout": refusal(
        lambda: runtime.ExecSync(v1.ExecSyncRequest(container_id=sleeper, cmd=["sleep", "100"], timeout=1))
    ),
}
limits = v1.LinuxContainerResources(memory_limit_in_bytes=64 << 20)
runtime.UpdateContainerResources(v1.UpdateContainerResourcesRequest(container_id=sleeper, linux=limits))
status = runtime.ContainerStatus(v1.ContainerStatusRequest(container_id=sleeper)).status
runtime.UpdatePodSandboxResources(v1.UpdatePodSandboxResourcesRequest(pod_sandbox_id=pod, resources=limits))
answers["updated"] = {"sandbox": True, "memory": str(status.resources.linux.memory_limit_in_bytes)}

# A pod with users of its own, of whom one prints the map.
config_ = sandbox("users", userns_options=users(v1.POD, one))
mapped = run(config_)
options = v1.NamespaceOption(userns_options=users(v1.POD, one))
printer = container(mapped, config_, "printer", ["cat", "/proc/self/uid_map"], namespace_options=options)
events = runtime.GetContainerEvents(v1.GetEventsRequest())
runtime.StartContainer(v1.StartContainerRequest(container_id=printer))
while True:
    status = runtime.ContainerStatus(v1.ContainerStatusRequest(container_id=printer)).status
    if status.state == v1.CONTAINER_EXITED:
        break
    next(events)
events.cancel()
with open(status.log_path) as log:
    answers["ownUsers"] = log.read().split(" F ", 1)[1]

# Ends are the same however often they are asked for, and whatever still runs.
for _ in range(2):
    runtime.StopContainer(v1.StopContainerRequest(container_id=sleeper, timeout=0))
    runtime.RemoveContainer(v1.RemoveContainerRequest(container_id=sleeper))
    for one in [pod, mapped]:
        runtime.StopPodSandbox(v1.StopPodSandboxRequest(pod_sandbox_id=one))
        runtime.RemovePodSandbox(v1.RemovePodSandboxRequest(pod_sandbox_id=one))
answers["idempotent"] = refusal(lambda: runtime.PodSandboxStatus(v1.PodSandboxStatusRequest(pod_sandbox_id=pod))) == "NOT_FOUND"
json.dump(answers, sys.stdout)
