//go:build tools

// Package clients pins crictl and the CRI's own Go code. Nothing is built from this file.
package clients

import (
	_ "k8s.io/cri-api/pkg/apis/runtime/v1"
	_ "sigs.k8s.io/cri-tools/cmd/crictl"
)
