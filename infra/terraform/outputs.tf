output "store" {
  description = "run.store of a campaign."
  value       = "s3://${aws_s3_bucket.store.bucket}/store"
}

output "policy_arn" {
  description = "To be attached to the role of orchestrator and stages."
  value       = aws_iam_policy.use.arn
}

output "repositories" {
  description = "Image name to its address in the registry."
  value       = { for name, repository in aws_ecr_repository.image : name => repository.repository_url }
}
