"""How stages are given containers. Nothing in here changes a result, so none of it is in a key."""

from pydantic import Field

from aot_core.contracts.base import Frozen
from aot_core.contracts.texts import Name, PathText

CONTAINER_ENVIRONMENT = (
    # What decides the last bit of a sum, and how memory is given back.
    "MKL_CBWR", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_",
    # Who may be asked for models, and that nobody is told.
    "HF_HUB_OFFLINE", "HF_TOKEN", "DO_NOT_TRACK", "MLFLOW_DISABLE_TELEMETRY", "TOKENIZERS_PARALLELISM",
    # Which code a config may name.
    "AOT_ALLOWED_CODE",
    # The stores' and the tracker's credentials.
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "MLFLOW_S3_ENDPOINT_URL", "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN",
)  # fmt: skip
"""What a stage's container is given of the caller's environment, where it is set; nothing else."""


class DockerSettings(Frozen):
    """`--launcher docker`: every stage in a container of its own."""

    image: Name = "aot-stage-cpu:latest"
    """The stage's image; with a GPU `aot-stage-gpu:latest`. `docker/build.sh` makes both."""
    memory: str | None = Field(default="16g", pattern=r"^[1-9]\d{0,8}[kmgKMG]$")
    """Maximum memory of a stage, including swap. None: no limit."""
    cpus: float | None = Field(default=None, gt=0, le=4096)
    """Maximum number of CPU cores of a stage. None: no limit."""
    shm_size: str = Field(default="1g", pattern=r"^[1-9]\d{0,8}[kmgKMG]$")
    """Size of `/dev/shm`, which data loaders and NCCL use for communication."""
    pids: int = Field(default=4096, ge=64, le=4_194_304)
    """Maximum number of processes and threads of a stage."""
    network: Name = "none"
    """The container's network. "none" is enough while store and MLflow are folders. A bucket or a server needs
    "bridge", "host", or a network of your own."""
    user: str = Field(default="", pattern=r"^(\d{1,10}(:\d{1,10})?)?$")
    """UID:GID. Empty: the caller's if one of the caller's folders is mounted, so that new files belong to the caller;
    otherwise the image's own (10001)."""
    model_cache: PathText | None = None
    """A folder of hub models on the docker host, mounted read-only as the container's `HF_HOME`."""


class KubernetesSettings(Frozen):
    """`--launcher kubernetes`: every stage a batch/v1 Job. Needs `kubectl` and a bucket as store."""

    image: Name = "aot-stage-gpu:latest"
    namespace: str = Field(default="aot", pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
    service_account: Name = "aot-stage"
    """`infra/kubernetes/base.yaml` creates it, without any permission on the cluster."""
    secret: Name = "aot-stage"
    """Name of the Secret whose keys become the stage's environment: the store's and MLflow's credentials."""
    cpus: str = Field(default="4", pattern=r"^\d{1,9}(\.\d{1,3})?m?$")
    memory: str = Field(default="32Gi", pattern=r"^\d{1,15}(Ki|Mi|Gi|Ti)?$")
    gpus: int = Field(default=1, ge=0, le=64)
    """Number of `nvidia.com/gpu` for a stage whose device is "cuda" or "auto"."""
    scratch: str = Field(default="100Gi", pattern=r"^\d{1,15}(Ki|Mi|Gi|Ti)?$")
    """Size of the emptyDir at /scratch."""
    model_claim: Name | None = None
    """A PersistentVolumeClaim of hub models, mounted read-only as `HF_HOME`."""
