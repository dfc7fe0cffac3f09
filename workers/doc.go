// Package workers binds each kind of job to the service that does its work. A
// worker decodes, calls one method, and returns its outcome; it decides nothing.
//
// Read register.go first: it lists everything that this system runs.
package workers
