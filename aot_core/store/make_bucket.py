"""`python -m aot_core.store.make_bucket s3://BUCKET`: makes the bucket where there is none. For object stores of one's
own; on AWS `infra/terraform` makes it, with its policy."""

# pyright: basic
# boto3 carries no types.

import sys

import boto3
from botocore.exceptions import ClientError

_OURS = {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}


def make_bucket(uri: str, endpoint_url: str | None = None) -> None:
    """Make the bucket of a store's URI. One that is there already is fine."""
    bucket = uri.removeprefix("s3://").partition("/")[0]
    client = boto3.client("s3", endpoint_url=endpoint_url, region_name="us-east-1")
    try:
        client.create_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["Error"]["Code"] not in _OURS:
            raise


if __name__ == "__main__":
    make_bucket(sys.argv[1])
