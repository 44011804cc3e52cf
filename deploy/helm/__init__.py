"""What belongs to the chart: the pod of `helm test`, and the installer of the programs that test the chart."""
