// Package api is the HTTP face for machines: so far the probes that say whether
// this process is live, ready and started.
package api
