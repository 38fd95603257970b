// Package store holds all SQL. One text serves both engines where it runs on
// both; what differs between them sits in a file per engine. Methods are the
// same inside and outside a transaction.
package store
