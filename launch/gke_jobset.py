#!/usr/bin/env python3
"""Prints a JobSet for GKE that trains on a TPU slice, several slices, or nodes with GPUs.

    python launch/gke_jobset.py --name zebra --image IMAGE --bucket my-bucket --tpu v5e:4x4 -- \\
        train --config=omgd/horse2zebra:path=/runs/horse2zebra --workdir=/runs/zebra \\
        | kubectl apply -f -
    python launch/gke_jobset.py --name zebra --image IMAGE --bucket my-bucket \\
        --gpu nvidia-h100-80gb:8 --nodes 2 -- train ... | kubectl apply -f -

The manifest is JSON, which kubectl reads as it reads YAML. The bucket is mounted at /runs in every
pod. What a preemption stops (exit code 75), and whatever else ends badly, is started again by the
JobSet, --restarts times; then the run goes on from its last checkpoint. Codes 1 and 2 are mistakes
and fail at once.

The cluster needs the JobSet controller, Cloud Storage FUSE, a service account that may use the
bucket, and for GPUs one that may read jobs, pods and services: `--rbac` prints that, too.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys

# Kind: (accelerator label of the node pool, chips of a host at most).
TPUS = {'v4': ('tpu-v4-podslice', 4), 'v5e': ('tpu-v5-lite-podslice', 4),
        'v5p': ('tpu-v5p-slice', 4), 'v6e': ('tpu-v6e-slice', 4), 'tpu7x': ('tpu7x', 4)}
CORE, JOBSET = 'v1', 'jobset.x-k8s.io/v1alpha2'
ACCOUNT = 'jaxgan'


def jobset(values, command: list[str]) -> dict:
  """The manifest, as plain values."""
  container = {
      'name': 'train', 'image': values.image, 'command': ['jaxgan-compress', *command],
      'env': [{'name': 'JAXGAN_DISTRIBUTED', 'value': 'auto'}],
      'volumeMounts': [{'name': 'runs', 'mountPath': '/runs'}]}
  pod = {
      'restartPolicy': 'Never', 'serviceAccountName': values.account,
      'terminationGracePeriodSeconds': 60, 'containers': [container],
      'volumes': [{'name': 'runs', 'csi': {
          'driver': 'gcsfuse.csi.storage.gke.io',
          'volumeAttributes': {'bucketName': values.bucket,
                               'mountOptions': 'implicit-dirs,rename-dir-limit=100000'}}}]}
  if values.spot:
    pod['nodeSelector'] = {'cloud.google.com/gke-spot': 'true'}
  if values.tpu:
    kind, topology, hosts, chips = tpu(values.tpu)
    pod.setdefault('nodeSelector', {}).update({
        'cloud.google.com/gke-tpu-accelerator': TPUS[kind][0],
        'cloud.google.com/gke-tpu-topology': topology})
    container['resources'] = {'limits': {'google.com/tpu': chips}}
    container['ports'] = [{'containerPort': 8471}, {'containerPort': 8080}]
  else:
    kind, count = gpu(values.gpu)
    hosts = values.nodes
    pod.setdefault('nodeSelector', {})['cloud.google.com/gke-accelerator'] = kind
    container['resources'] = {'limits': {'nvidia.com/gpu': count}}
    # JAX's own detection counts the pods of one job, and gives a pod all its GPUs.
    container['env'].append({'name': 'JAX_LOCAL_DEVICE_IDS',
                             'value': ','.join(map(str, range(count)))})
  job = {'name': 'workers', 'replicas': values.slices, 'template': {'spec': {
      'parallelism': hosts, 'completions': hosts, 'completionMode': 'Indexed', 'backoffLimit': 0,
      # A mistake would come again with every start.
      'podFailurePolicy': {'rules': [{'action': 'FailJob', 'onExitCodes': {
          'containerName': 'train', 'operator': 'In', 'values': [1, 2]}}]},
      'template': {'metadata': {'annotations': {'gke-gcsfuse/volumes': 'true'}}, 'spec': pod}}}}
  return {
      'apiVersion': JOBSET, 'kind': 'JobSet',
      'metadata': {'name': values.name, 'annotations': {
          'alpha.jobset.sigs.k8s.io/exclusive-topology': 'cloud.google.com/gke-nodepool'}},
      'spec': {
          'failurePolicy': {'maxRestarts': values.restarts, 'rules': [
              {'name': 'mistake', 'action': 'FailJobSet',
               'onJobFailureReasons': ['PodFailurePolicy']}]},
          'replicatedJobs': [job]}}


def rbac(values) -> list[dict]:
  """What lets JAX on GPU pods find its peers."""
  name = {'name': f'{values.account}-peers'}
  return [
      {'apiVersion': CORE, 'kind': 'ServiceAccount', 'metadata': {'name': values.account}},
      {'apiVersion': 'rbac.authorization.k8s.io/v1', 'kind': 'Role', 'metadata': name, 'rules': [
          {'apiGroups': [''], 'resources': ['pods', 'services'], 'verbs': ['get', 'list']},
          {'apiGroups': ['batch'], 'resources': ['jobs'], 'verbs': ['get', 'list']}]},
      {'apiVersion': 'rbac.authorization.k8s.io/v1', 'kind': 'RoleBinding', 'metadata': name,
       'subjects': [{'kind': 'ServiceAccount', 'name': values.account, 'namespace': 'default'}],
       'roleRef': {'apiGroup': 'rbac.authorization.k8s.io', 'kind': 'Role', **name}}]


def tpu(text: str) -> tuple[str, str, int, int]:
  """(kind, topology, hosts, chips of a host) of 'v5e:4x4'."""
  kind, _, topology = text.partition(':')
  if kind not in TPUS or not re.fullmatch(r'\d+x\d+(x\d+)?', topology):
    raise ValueError(f'--tpu {text!r}; as v5e:4x4, a kind of {", ".join(TPUS)} and a topology')
  chips = math.prod(map(int, topology.split('x')))
  a_host = min(chips, TPUS[kind][1])
  return kind, topology, chips // a_host, a_host


def gpu(text: str) -> tuple[str, int]:
  """(kind, how many a node has) of 'nvidia-h100-80gb:8'."""
  kind, _, count = text.rpartition(':')
  if not kind or not count.isdecimal() or int(count) < 1:
    raise ValueError(f'--gpu {text!r}; as nvidia-h100-80gb:8, a kind and how many a node has')
  return kind, int(count)


def main(argv: list[str]) -> int:
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
      usage='gke_jobset.py [options] -- train --config=... --workdir=/runs/...')
  parser.add_argument('--name', required=True, help='of the JobSet')
  parser.add_argument('--image', required=True, help='a container with jaxgan-compress')
  parser.add_argument('--bucket', required=True, help='mounted at /runs')
  parser.add_argument('--tpu', metavar='KIND:TOPOLOGY', help=f'kinds: {", ".join(TPUS)}')
  parser.add_argument('--slices', type=int, default=1, help='of TPUs')
  parser.add_argument('--gpu', metavar='KIND:COUNT', help='and how many a node has')
  parser.add_argument('--nodes', type=int, default=1, help='with GPUs')
  parser.add_argument('--spot', action='store_true', help='cheaper, preemptible nodes')
  parser.add_argument('--restarts', type=int, default=20, help='of the whole JobSet')
  parser.add_argument('--account', default=ACCOUNT, help='service account')
  parser.add_argument('--rbac', action='store_true', help='print the service account, too')
  split = argv.index('--') if '--' in argv else len(argv)
  values, command = parser.parse_args(argv[:split]), argv[split + 1:]
  if not command:
    parser.error('nothing to run; give `-- train --config=... --workdir=/runs/...`')
  if bool(values.tpu) == bool(values.gpu):
    parser.error('give --tpu or --gpu, one of them')
  if values.gpu and values.slices > 1:
    parser.error('--slices are of TPUs; with --gpu take --nodes')
  if min(values.slices, values.nodes) < 1 or values.restarts < 0:
    parser.error('--slices and --nodes are at least 1, --restarts at least 0')
  if not re.fullmatch(r'[a-z]([a-z0-9-]{0,40}[a-z0-9])?', values.name):
    parser.error(f'--name {values.name!r}; small letters, digits and -, at most 42')
  workdir = [text for text in command if text.startswith('--workdir')]
  if workdir and not any('/runs/' in text for text in command):
    parser.error('--workdir is below /runs, where the bucket is mounted; a pod keeps nothing else')
  try:
    items = [*(rbac(values) if values.rbac else []), jobset(values, command)]
  except ValueError as e:
    parser.error(str(e))
  print(json.dumps(items[0] if len(items) == 1 else {
      'apiVersion': CORE, 'kind': 'List', 'items': items}, indent=2))
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
