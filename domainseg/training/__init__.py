"""What fitting a dense network needs: prepared images, patches, augmentation, the loop."""
