"""What both learners share: groups, their advantages, the clipped surrogate, divergences. One formula, one
function."""
