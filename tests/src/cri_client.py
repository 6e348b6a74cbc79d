"""What crictl asks a runtime above which a kubelet is, asked by a client that is not ours: version, info, pods, ps, images, exec, logs, stats.

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

json.dump(answers, sys.stdout)
