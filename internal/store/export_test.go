package store

// AuditHash is what whoever forges the chain would compute.
var AuditHash = auditHash
