// Package appconfig reads the settings, once, when a command starts. A flag
// counts before the environment, the environment before the default.
//
// One table, [Settings], is the only place where a setting is described: the
// flags, the parsing, the error messages and docs/reference/settings.md come
// from it. Whatever is wrong is reported together, one line each, so that an
// operator mends everything in one go. A TRUEGREEN_ name in the environment
// that is no setting is an error too: a misspelt setting must not be silently
// without effect.
package appconfig
