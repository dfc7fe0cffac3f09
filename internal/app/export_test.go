package app

import (
	"truegreen/internal/publish/natspublish"
	"truegreen/internal/reconcile"
)

// NewBrokerSource is what a comparison reads the broker by.
func NewBrokerSource(publisher *natspublish.Publisher) reconcile.Source {
	return brokerSource{publisher}
}

// WriteEnv stores variables for shells in a folder.
var WriteEnv = writeEnv

// TellProgress says how far an import is.
var TellProgress = tellProgress
