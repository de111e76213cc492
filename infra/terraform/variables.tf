variable "bucket" {
  description = "The bucket's name; run.store is then s3://BUCKET/store."
  type        = string
}

variable "region" {
  description = "Where the bucket and the registry are."
  type        = string
  default     = "eu-central-1"
}

variable "kms_key_arn" {
  description = "A KMS key to encrypt with; null: S3's own."
  type        = string
  default     = null
}

variable "undelete_days" {
  description = "For how long a deleted object can be had back."
  type        = number
  default     = 30
}
