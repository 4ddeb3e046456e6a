//go:build tools

// Package tools names what is built and read: the kinds of the Prometheus operator, and the generator of their definitions.
package tools

import (
	_ "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	_ "sigs.k8s.io/controller-tools/cmd/controller-gen"
)
