//! Registry client, content-addressed layer store and the provisioners that turn images into root filesystems.
