"""A cluster of one machine: rendered manifests, run on a Docker Engine the way Kubernetes would run them.

What is emulated, a file for each idea:

- `manifests`: workloads, pods, Services, ConfigMaps and Secrets as values. **Strict**: a field that is neither emulated
  nor known to make no difference here raises `NotEmulatedError`, so that no manifest passes by being overlooked.
- `environment`, `volumes`, `containers`: what kubelet makes of a pod's environment, volumes and security context.
- `pods`: kubelet's care of one pod: a sandbox that holds the network, init containers, containers that are started
  again with back-off, endings (endpoints gone and `preStop` side by side, SIGTERM, grace, SIGKILL).
- `probes`: start-up, readiness and liveness with their thresholds, asked from outside the pod as kubelet asks.
- `endpoints`, `dns`, `proxy`: which pods are behind a Service, its names, its virtual address.
- `rollouts`, `controllers`: what Deployments, StatefulSets and DaemonSets decide, and the loops that do it.
- `cluster`: all of it wired together; `downloads`: clients that download while something is rolled.

What is not, and is left to a real cluster:

- the scheduler (pods go to the emulated nodes in turn; requests, affinity, tolerations and spread are not weighed),
- NetworkPolicy (nothing is refused), Ingress, and whatever else needs a controller beyond the ones above,
- HorizontalPodAutoscaler (replicas stay as written), PodDisruptionBudget (there are no evictions here, and a rollout
  does not ask it), quota, admission (`deploy/tests/k8s` has the policy check),
- several machines: nodes share one kernel, one clock and one page cache; no packet is lost between them,
- evictions (a disk `emptyDir` that outgrows its limit), ServiceAccounts' tokens, images' pull policies,
- kube-proxy and CoreDNS as programs: here a TCP proxy and a small DNS server, which know of a change `ENDPOINT_LAG`
  after it happened; CoreDNS may answer from its cache for up to 30 s, this one does not.

Seconds of probes, of `minReadySeconds` and of the restart back-off are divided by the cluster's `haste`, to keep the
tests quick; time limits, `preStop` and grace periods are not, because the processes live in real time.
"""
