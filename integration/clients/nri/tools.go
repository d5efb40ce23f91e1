//go:build tools

// Package nri pins what the conformance suite builds for NRI: the critest whose release has
// specs of it. The plugin of haled's own tests is beside it.
package nri

import (
	_ "sigs.k8s.io/cri-tools/cmd/critest"
	_ "sigs.k8s.io/cri-tools/pkg/benchmark"
	_ "sigs.k8s.io/cri-tools/pkg/common"
	_ "sigs.k8s.io/cri-tools/pkg/framework"
	_ "sigs.k8s.io/cri-tools/pkg/validate"
)
