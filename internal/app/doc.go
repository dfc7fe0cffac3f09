// Package app wires the parts of truegreen by hand: it makes a command's
// services out of its settings, and starts and stops processes in the right
// order. It holds no rules of its own.
package app
