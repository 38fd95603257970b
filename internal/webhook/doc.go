// Package webhook tells other people's servers of events: signed as Standard
// Webhooks 1.0.0 (https://www.standardwebhooks.com), at least once, and never
// reaching into the network that the program itself runs in.
package webhook
