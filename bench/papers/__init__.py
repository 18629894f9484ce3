"""The experiments of the two papers: Ho et al. (NIPS 2013; SSP) and Dai et al. (AAAI 2015; ESSP, VAP)."""
